//! What the compiler did, for those who ask.

/// What the compiler did with one class of calls.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// Node counts around each pass.
    pub passes: Vec<PassNote>,
    /// Launch counts around each fusion.
    pub fusions: Vec<FusionNote>,
    /// For each launch: its label and the ops fused into it.
    pub kernels: Vec<KernelNote>,
    /// Elementwise results that were stored although a consumer could have computed them: the
    /// op and why.
    pub stored: Vec<(String, String)>,
    /// Things a user may want to know.
    pub notes: Vec<String>,
}

/// Node counts around a pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PassNote {
    /// The pass.
    pub pass: &'static str,
    /// Nodes before.
    pub before: usize,
    /// Nodes after.
    pub after: usize,
}

/// Launch counts around a fusion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FusionNote {
    /// The fusion.
    pub fusion: &'static str,
    /// Launches before.
    pub before: usize,
    /// Launches after.
    pub after: usize,
}

/// One launch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelNote {
    /// The kernel kind.
    pub kind: &'static str,
    /// The ops it computes, in order.
    pub ops: Vec<String>,
}
