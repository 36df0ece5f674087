//! Logins of initiators that no script of ours named: which version an alias means for them (rule 4).
//!
//! An alias is bound when an initiator first logs in by it, and does not move under a boot: the
//! initiator of the firmware, the kernel's and every reconnect get the same version. It moves when
//! that initiator discovers targets while it has no session on the image, or after a day without any.
