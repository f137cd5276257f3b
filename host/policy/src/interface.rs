//! The interfaces that the host calls, by name; and one file for each, with everything that crosses the border there.
//!
//! What both sides share has one type: those of `weir-policy-vectors`, which the host's `model` hands on. Only what is
//! borrowed on its way in (ids, texts, lists) and the generated types of answers are turned here.
//!
//! A new interface: a file here (its data into the guest's types, its answers checked, both recorded, the built-in answer),
//! a case below, its functions' types in `bindings`, and its calls in `ask`, in the language of vectors and in the
//! comparison. The compiler names the places.

pub(super) mod admission;
pub(super) mod cache;
pub(super) mod counter;
pub(super) mod delivery;
pub(super) mod flush;
pub(super) mod ingest;
pub(super) mod toggle;

/// One interface of the WIT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Interface {
    /// Decides toggles.
    Toggle,
    /// Decides what hits count for.
    Counter,
    /// Judges documents.
    Ingest,
    /// Decides who gets a push.
    Delivery,
    /// Decides when and what to flush.
    Flush,
    /// Decides who is let in.
    Admission,
    /// Decides what is kept of reads.
    Cache,
}

impl Interface {
    /// How many there are.
    pub(super) const COUNT: usize = 7;
    /// Every interface.
    pub(super) const ALL: [Self; Self::COUNT] =
        [Self::Toggle, Self::Counter, Self::Ingest, Self::Delivery, Self::Flush, Self::Admission, Self::Cache];

    /// For metrics and people.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Toggle => "toggle",
            Self::Counter => "counter",
            Self::Ingest => "ingest",
            Self::Delivery => "delivery",
            Self::Flush => "flush",
            Self::Admission => "admission",
            Self::Cache => "cache",
        }
    }

    /// The one with this [`Interface::name`].
    pub(super) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|interface| interface.name() == name)
    }

    /// What a component calls it.
    pub(super) fn export_name(self) -> &'static str {
        match self {
            Self::Toggle => "weir:policy/toggle@0.1.0",
            Self::Counter => "weir:policy/counter@0.1.0",
            Self::Ingest => "weir:policy/ingest@0.1.0",
            Self::Delivery => "weir:policy/delivery@0.1.0",
            Self::Flush => "weir:policy/flush@0.1.0",
            Self::Admission => "weir:policy/admission@0.1.0",
            Self::Cache => "weir:policy/cache@0.1.0",
        }
    }

    /// The cases of the enums and variants that its functions answer with, for people.
    pub(super) fn words_of_answers(self) -> &'static str {
        match self {
            Self::Toggle => "add, remove, keep, deny (effect), and none or some limit",
            Self::Counter => "none or some unique-ms, and none or some limit",
            Self::Ingest => "ok with none or some text, and err with violations",
            Self::Admission => "line, draw, refuse (placement)",
            Self::Cache => "bypass, store (cache-rule)",
            Self::Delivery | Self::Flush => "true and false",
        }
    }

    /// The functions that it has.
    pub(super) fn functions(self) -> &'static [&'static str] {
        match self {
            Self::Toggle | Self::Counter => &["decide"],
            Self::Ingest => &["validate"],
            Self::Delivery => &["fields", "enabled"],
            Self::Flush => &["plan", "coalesce"],
            Self::Admission => &["place", "plan"],
            Self::Cache => &["eligible"],
        }
    }

    /// The same with the compatible later patches.
    pub(super) fn export_prefix(self) -> &'static str {
        self.export_name().trim_end_matches('0')
    }
}
