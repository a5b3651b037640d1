//! Texts with a format: each is a type that is parsed once, checked by the schema walk and described in the schema.
//!
//! A format takes any scalar and keeps its source text, so that `mode: 0644`, `cpu: 0.5` and `user: 1000` mean what is
//! written and not what YAML makes of it.

use std::fmt;
use std::marker::PhantomData;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::{DeserializeOwned, Deserializer, MapAccess, Visitor, value::MapAccessDeserializer};
use serde::{Deserialize, de};

use crate::model::codes;

/// Why a text does not have its format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bad {
    pub(crate) code: &'static str,
    /// Continues "`field`: ".
    pub(crate) what: String,
    pub(crate) help: Option<String>,
    pub(crate) suggestion: Option<String>,
}

impl Bad {
    pub(crate) fn new(code: &'static str, what: impl Into<String>) -> Self {
        Self { code, what: what.into(), help: None, suggestion: None }
    }

    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    pub(crate) fn suggest(mut self, suggestion: impl Into<String>) -> Self {
        self.suggestion = Some(suggestion.into());
        self
    }
}

/// A text with a format.
pub(crate) trait Format: Sized {
    /// Its name in the schema (`x-format`); unique.
    const NAME: &'static str;
    /// `"type"` in the schema, for editors.
    const TYPES: &'static [&'static str];
    /// One line for editors.
    const ABOUT: &'static str;
    fn parse(text: &str) -> Result<Self, Bad>;
}

/// The table the schema walk looks formats up in.
type Check = fn(&str) -> Result<(), Bad>;

fn check_of<T: Format>() -> (&'static str, Check) {
    (T::NAME, |text| T::parse(text).map(drop))
}

/// The check of the format with this name.
pub(crate) fn check(name: &str) -> Option<Check> {
    use super::duration::Duration;
    use super::native::{dns, network, pull, restart, text};
    use super::quantity;
    let all = [
        check_of::<Duration>(),
        check_of::<quantity::Memory>(),
        check_of::<quantity::Cpu>(),
        check_of::<quantity::Amount>(),
        check_of::<text::Name>(),
        check_of::<text::Reference>(),
        check_of::<text::ContainerPath>(),
        check_of::<text::HostPath>(),
        check_of::<text::FileName>(),
        check_of::<text::FileMode>(),
        check_of::<text::Publish>(),
        check_of::<text::PortMapping>(),
        check_of::<text::TcpTarget>(),
        check_of::<text::HttpTarget>(),
        check_of::<text::Signal>(),
        check_of::<text::Cron>(),
        check_of::<text::TimeZone>(),
        check_of::<text::Capability>(),
        check_of::<text::TmpfsSize>(),
        check_of::<text::User>(),
        check_of::<text::Hostname>(),
        check_of::<dns::DnsName>(),
        check_of::<network::SubnetText>(),
        check_of::<network::AddressText>(),
        check_of::<restart::RestartPolicy>(),
        check_of::<pull::PullPolicyText>(),
        check_of::<text::AnyScalar>(),
    ];
    all.into_iter().find(|(known, _)| *known == name).map(|(_, check)| check)
}

/// The schema of a format.
pub(crate) fn schema<T: Format>() -> Schema {
    schemars::json_schema!({ "type": T::TYPES, "x-format": T::NAME, "description": T::ABOUT })
}

/// Reads a format from a deserializer that holds a text.
pub(crate) fn deserialize<'de, T: Format, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    let text = String::deserialize(deserializer)?;
    T::parse(&text).map_err(|bad| de::Error::custom(bad.what))
}

/// Makes a type with a `Format` usable in wire structs.
macro_rules! wire_format {
    ($($name:ty),* $(,)?) => {$(
        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                crate::manifest::format::deserialize(deserializer)
            }
        }
        impl schemars::JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> std::borrow::Cow<'static, str> {
                <Self as crate::manifest::format::Format>::NAME.into()
            }
            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                crate::manifest::format::schema::<Self>()
            }
        }
    )*};
}
pub(crate) use wire_format;

/// A short form written as one scalar, or a long form written as a mapping.
#[derive(Debug)]
pub(crate) enum ShortOr<S, L> {
    Short(S),
    Long(L),
}

impl<'de, S: Format, L: DeserializeOwned> Deserialize<'de> for ShortOr<S, L> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either<S, L>(PhantomData<(S, L)>);
        impl<'de, S: Format, L: DeserializeOwned> Visitor<'de> for Either<S, L> {
            type Value = ShortOr<S, L>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text or a mapping")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                S::parse(text).map(ShortOr::Short).map_err(|bad| E::custom(bad.what))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                L::deserialize(MapAccessDeserializer::new(map)).map(ShortOr::Long)
            }
        }
        deserializer.deserialize_any(Either(PhantomData))
    }
}

impl<S: Format, L: JsonSchema> JsonSchema for ShortOr<S, L> {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        format!("{}Or{}", S::NAME, L::schema_name()).into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let long = generator.subschema_for::<L>();
        schemars::json_schema!({ "anyOf": [schema::<S>(), long] })
    }
}

/// What is said about any text with a NUL, which no system call can carry.
pub(crate) fn no_nul(text: &str) -> Result<(), Bad> {
    if text.contains('\0') {
        return Err(Bad::new(codes::VALUE, "it contains a NUL character"));
    }
    Ok(())
}
