//! What is wrong with what somebody filled in, so that it is said where they look.

/// A form that has to be filled in again.
#[derive(Debug)]
pub(in crate::web::pages) struct Wrong {
    /// The field; none where it is about all of them together.
    field: Option<&'static str>,
    /// Why it cannot be taken.
    pub(in crate::web::pages) why: String,
}

impl Wrong {
    /// What is wrong with one field.
    pub(in crate::web::pages) fn in_field(field: &'static str) -> impl FnOnce(String) -> Wrong {
        move |why| Wrong {
            field: Some(field),
            why,
        }
    }

    /// What is wrong with all of it.
    pub(in crate::web::pages) fn anywhere(why: String) -> Wrong {
        Wrong { field: None, why }
    }

    /// Whether it is no field's.
    pub(in crate::web::pages) fn is_anywhere(&self) -> bool {
        self.field.is_none()
    }

    /// What is wrong with a field, if that is what is wrong.
    pub(in crate::web::pages) fn with<'a>(
        wrong: Option<&'a Wrong>,
        field: &str,
    ) -> Option<&'a str> {
        let wrong = wrong.filter(|wrong| wrong.field == Some(field))?;
        Some(&wrong.why)
    }
}
