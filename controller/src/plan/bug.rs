//! Mistakes the simulator can switch on to prove that it would find them. Nothing outside tests makes one: `plan()`
//! plans without, and no manifest, flag or variable reaches this type.

/// One planted mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the name says the mistake")]
pub enum Bug {
    StopWithoutDrain,
    FloorIgnored,
    CeilingIgnored,
    ExitedNeverReplaced,
    OldStoppedBeforeNewIsReady,
    AddressOfCreatedReused,
    FailedRevisionRetried,
    HoldIgnored,
    HoldOfAnotherSource,
    DependencyStoppedFirst,
    BackOffIgnored,
    ExclusiveIgnored,
    NeededImageCollected,
    StartNotAfterCreate,
    RemoveNotAfterStop,
    TableNeverEqual,
    NamedVolumeRemoved,
    JobRunTwice,
    AlterationIgnored,
    UnhealthyLeftAlone,
    HoldByHandIgnored,
    PauseIgnored,
    UndoByHandIgnored,
    InitContainersIgnored,
    EndedPodKept,
    MemberNeverReplaced,
    OrderIgnored,
}

impl Bug {
    /// Every one.
    pub const ALL: [Self; 27] = [
        Self::StopWithoutDrain,
        Self::FloorIgnored,
        Self::CeilingIgnored,
        Self::ExitedNeverReplaced,
        Self::OldStoppedBeforeNewIsReady,
        Self::AddressOfCreatedReused,
        Self::FailedRevisionRetried,
        Self::HoldIgnored,
        Self::HoldOfAnotherSource,
        Self::DependencyStoppedFirst,
        Self::BackOffIgnored,
        Self::ExclusiveIgnored,
        Self::NeededImageCollected,
        Self::StartNotAfterCreate,
        Self::RemoveNotAfterStop,
        Self::TableNeverEqual,
        Self::NamedVolumeRemoved,
        Self::JobRunTwice,
        Self::AlterationIgnored,
        Self::UnhealthyLeftAlone,
        Self::HoldByHandIgnored,
        Self::PauseIgnored,
        Self::UndoByHandIgnored,
        Self::InitContainersIgnored,
        Self::EndedPodKept,
        Self::MemberNeverReplaced,
        Self::OrderIgnored,
    ];
}
