//! How bodies are read that strangers send.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};

/// A value with names: derived code would take a list without them as well, and guess by the order.
#[derive(Debug)]
pub struct Object<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        object(deserializer).map(Object)
    }
}

/// The same for a field (`deserialize_with`).
pub(crate) fn object<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    struct Named<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for Named<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<T, M::Error> {
            T::deserialize(MapAccessDeserializer::new(map))
        }
    }

    deserializer.deserialize_map(Named(PhantomData))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::library::{Act, AssignTo};

    #[test]
    fn what_has_names_is_no_list() {
        let read = |text: &str| serde_json::from_str::<Object<Act>>(text).map(|act| act.0);
        let assign = AssignTo {
            image: Some("fc28".parse().unwrap()),
            mode: None,
        };
        assert_eq!(
            read(r#"{"assign":{"image":"fc28"}}"#).unwrap(),
            Act::Assign(assign)
        );
        for wrong in [r#"{"assign":["fc28",null]}"#, r#"["assign"]"#, "null"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
