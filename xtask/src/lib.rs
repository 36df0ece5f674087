//! The project's own tools as a library, so that tests use the same laboratory as the demonstration.
