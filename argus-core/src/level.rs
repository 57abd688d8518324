//! The closed word lists of a record: level, actor type, outcome. Pure data; the texts are those of `docs/record-format.md`.

use std::fmt;
use std::str::FromStr;

macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$vmeta:meta])* $variant:ident = $text:literal),* $(,)? }) => {
        $(#[$meta])*
        pub enum $name { $($(#[$vmeta])* $variant),* }

        impl $name {
            /// Every value, in order.
            pub const ALL: &'static [$name] = &[$($name::$variant),*];

            /// The text that records carry.
            pub const fn as_str(self) -> &'static str {
                match self { $($name::$variant => $text),* }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = UnknownWord;

            /// Reads the text of a record, in any ASCII case.
            fn from_str(s: &str) -> Result<Self, UnknownWord> {
                $(if s.eq_ignore_ascii_case($text) { return Ok($name::$variant); })*
                Err(UnknownWord { given: s.into(), expected: &[$($text),*] })
            }
        }
    };
}

words! {
    /// How much a fact matters. Ordered: `Info < Warn < Critical < Security`.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
    #[repr(u8)]
    Level {
        /// Routine: a file was read, a service started.
        #[default]
        Info = "INFO",
        /// Something that should be looked at.
        Warn = "WARN",
        /// A change that affects how a service works, such as its configuration.
        Critical = "CRITICAL",
        /// Access, credentials, tampering, and losses of the trail itself.
        Security = "SECURITY",
    }
}

words! {
    /// What kind of principal acted.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    #[non_exhaustive]
    ActorType {
        /// A person.
        User = "user",
        /// Another program.
        Service = "service",
        /// The machine or Argus itself.
        System = "system",
    }
}

words! {
    /// How an action ended.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    #[non_exhaustive]
    Outcome {
        /// It was done.
        Success = "success",
        /// It was refused or failed.
        Failure = "failure",
        /// The caller could not tell.
        Unknown = "unknown",
        /// It was begun, and nobody said how it ended.
        Abandoned = "abandoned",
    }
}

impl Level {
    pub(crate) const fn from_u8(v: u8) -> Level {
        match v {
            0 => Level::Info,
            1 => Level::Warn,
            2 => Level::Critical,
            _ => Level::Security,
        }
    }
}

/// A word that is in none of the lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownWord {
    given: String,
    expected: &'static [&'static str],
}

impl fmt::Display for UnknownWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is none of {}", self.given, self.expected.join(", "))
    }
}

impl std::error::Error for UnknownWord {}
