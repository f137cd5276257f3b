//! The interfaces that the host calls.

/// One interface of the WIT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Interface {
    /// Decides toggles.
    Toggle,
    /// Decides when and what to flush.
    Flush,
}

impl Interface {
    /// Every interface.
    pub(super) const ALL: [Self; 2] = [Self::Toggle, Self::Flush];

    /// For metrics and people.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Toggle => "toggle",
            Self::Flush => "flush",
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
            Self::Flush => "weir:policy/flush@0.1.0",
        }
    }

    /// The same with the compatible later patches.
    pub(super) fn export_prefix(self) -> &'static str {
        match self {
            Self::Toggle => "weir:policy/toggle@0.1.",
            Self::Flush => "weir:policy/flush@0.1.",
        }
    }
}
