//! What a process keeps from its start to its end, whatever later documents say: changes of it are told, never ignored.

use pylon_config::admin::AdminSpec;
use pylon_config::document::Document;
use pylon_core::secret::Secret;
use pylon_observe::spec::TelemetrySpec;

use crate::prepare::Prepared;

/// What the first document said of it.
#[derive(Debug)]
pub(crate) struct Fixed {
    workers: usize,
    admin: AdminSpec,
    telemetry: TelemetrySpec,
    token: Option<Secret>,
}

impl Fixed {
    /// By the first document.
    pub(crate) fn new(prepared: &Prepared) -> Self {
        let document = &prepared.document;
        Self {
            workers: prepared.plan.workers,
            admin: document.admin.clone(),
            telemetry: document.telemetry.clone(),
            token: prepared.plan.admin.as_ref().and_then(|admin| admin.token.clone()),
        }
    }

    /// The keys that say something else than what holds until a restart.
    pub(crate) fn differs(&self, document: &Document) -> Vec<&'static str> {
        let log = |spec: &TelemetrySpec| TelemetrySpec { reason_header: false, ..spec.clone() };
        let differences = [
            ("workers", document.workers.is_some_and(|workers| workers != self.workers)),
            ("admin", !self.has_this_admin(&document.admin)),
            ("telemetry", log(&document.telemetry) != log(&self.telemetry)),
        ];
        differences.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect()
    }

    /// What callers of the admin API must show. A token may change while the address stays; without one, an address must
    /// be loopback, so the two go together.
    pub(crate) fn token(&self, prepared: &Prepared) -> Option<Secret> {
        let token = prepared.plan.admin.as_ref().and_then(|admin| admin.token.clone());
        if self.has_this_admin(&prepared.document.admin) { token } else { self.token.clone() }
    }

    /// Whether the admin API that listens is the one that is written, whatever its token.
    fn has_this_admin(&self, spec: &AdminSpec) -> bool {
        AdminSpec { token: None, ..spec.clone() } == AdminSpec { token: None, ..self.admin.clone() }
    }
}
