//! What is at which path, and by which methods. Knows paths only, never what answers.

use hyper::Method;
use matchit::{InsertError, Router};

/// What a path is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Route {
    Page,
    Script,
    Style,
    /// The description of this API.
    OpenApi,
    Alive,
    Ready,
    Metrics,
    Flush,
    Cache,
    Purge,
    DeadLetters,
    DeadLetter,
    Replay,
    /// What journals have lost.
    Holes,
    AcknowledgeHoles,
    Explain,
    /// Without an actor.
    ExplainTarget,
    /// Who takes part in the draw of a waiting room.
    Arrivals,
    Policy(PolicyRoute),
}

/// What a path below `/admin/v1/policies` is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PolicyRoute {
    /// The list, and where uploads go.
    All,
    Rollback,
    Diff,
    Audit,
    /// The running shadow: `DELETE` ends it.
    Shadow,
    /// The running canary: `DELETE` ends it.
    Canary,
    Module,
    ActivateModule,
    ShadowModule,
    CanaryModule,
}

/// A fixed segment goes before `{module}`: a module with such a name is reached by its digest.
pub(super) const ROUTES: [(&str, Route); 28] = [
    ("/", Route::Page),
    ("/dashboard.js", Route::Script),
    ("/dashboard.css", Route::Style),
    ("/livez", Route::Alive),
    ("/readyz", Route::Ready),
    ("/metrics", Route::Metrics),
    ("/admin/v1/openapi.json", Route::OpenApi),
    ("/admin/v1/flush", Route::Flush),
    ("/admin/v1/cache", Route::Cache),
    ("/admin/v1/cache/purge", Route::Purge),
    ("/admin/v1/policies", Route::Policy(PolicyRoute::All)),
    ("/admin/v1/policies/rollback", Route::Policy(PolicyRoute::Rollback)),
    ("/admin/v1/policies/diff", Route::Policy(PolicyRoute::Diff)),
    ("/admin/v1/policies/audit", Route::Policy(PolicyRoute::Audit)),
    ("/admin/v1/policies/shadow", Route::Policy(PolicyRoute::Shadow)),
    ("/admin/v1/policies/canary", Route::Policy(PolicyRoute::Canary)),
    ("/admin/v1/policies/{module}", Route::Policy(PolicyRoute::Module)),
    ("/admin/v1/policies/{module}/activate", Route::Policy(PolicyRoute::ActivateModule)),
    ("/admin/v1/policies/{module}/shadow", Route::Policy(PolicyRoute::ShadowModule)),
    ("/admin/v1/policies/{module}/canary", Route::Policy(PolicyRoute::CanaryModule)),
    ("/admin/v1/dead-letters", Route::DeadLetters),
    ("/admin/v1/dead-letters/{id}", Route::DeadLetter),
    ("/admin/v1/dead-letters/{id}/replay", Route::Replay),
    ("/admin/v1/journal/holes", Route::Holes),
    ("/admin/v1/journal/{kind}/acknowledge", Route::AcknowledgeHoles),
    ("/admin/v1/explain/{kind}/{target}", Route::ExplainTarget),
    ("/admin/v1/explain/{kind}/{target}/{actor}", Route::Explain),
    ("/admin/v1/rooms/{kind}/{queue}/arrivals", Route::Arrivals),
];

/// The table of all paths.
///
/// # Errors
/// Two patterns for the same paths.
pub(super) fn router() -> Result<Router<Route>, InsertError> {
    let mut router = Router::new();
    for (pattern, route) in ROUTES {
        router.insert(pattern, route)?;
    }
    Ok(router)
}

impl Route {
    /// The value of `Allow`.
    pub(super) fn allow(self) -> &'static str {
        match self {
            Self::DeadLetter => "DELETE",
            Self::Replay | Self::Purge | Self::AcknowledgeHoles => "POST",
            Self::Flush => "GET, HEAD, POST",
            Self::Policy(route) => match route {
                PolicyRoute::All => "GET, HEAD, POST",
                PolicyRoute::Diff | PolicyRoute::Audit => "GET, HEAD",
                PolicyRoute::Shadow | PolicyRoute::Canary | PolicyRoute::Module => "DELETE",
                PolicyRoute::Rollback
                | PolicyRoute::ActivateModule
                | PolicyRoute::ShadowModule
                | PolicyRoute::CanaryModule => "POST",
            },
            _ => "GET, HEAD",
        }
    }

    /// The methods that it takes.
    pub(super) fn methods(self) -> impl Iterator<Item = Method> {
        self.allow().split(", ").filter_map(|method| method.parse().ok())
    }

    pub(super) fn takes(self, method: &Method) -> bool {
        self.methods().any(|allowed| allowed == *method)
    }

    /// Pages hold no data, probes have no token.
    pub(super) fn is_open(self) -> bool {
        matches!(self, Self::Page | Self::Script | Self::Style | Self::Alive | Self::Ready)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fixed_segment_is_not_taken_for_a_module() {
        let router = router().unwrap();
        let at = |path: &str| *router.at(path).unwrap().value;
        for (path, route) in [
            ("/admin/v1/policies/rollback", PolicyRoute::Rollback),
            ("/admin/v1/policies/shadow", PolicyRoute::Shadow),
            ("/admin/v1/policies/canary", PolicyRoute::Canary),
            ("/admin/v1/policies/diff", PolicyRoute::Diff),
            ("/admin/v1/policies/audit", PolicyRoute::Audit),
            ("/admin/v1/policies/shadowy", PolicyRoute::Module),
            ("/admin/v1/policies/shadow/activate", PolicyRoute::ActivateModule),
            ("/admin/v1/policies/rollback/canary", PolicyRoute::CanaryModule),
            ("/admin/v1/policies/canary/shadow", PolicyRoute::ShadowModule),
        ] {
            assert_eq!(at(path), Route::Policy(route), "{path}");
        }
        assert!(router.at("/admin/v1/policies/").is_err());
        assert!(router.at("/admin/v1/policies/a/rollback").is_err());
    }
}
