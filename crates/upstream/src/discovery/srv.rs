//! Records of type SRV (RFC 2782), each of which names an endpoint: host, port, weight, priority.
//!
//! Those with the lowest priority come first; the others stand in where too few of these are left. A host is one endpoint, whose name is resolved for itself. Weight 0 counts as 1. A lone `.` says that the service is not offered.

use std::time::Duration;

use pylon_net::resolve::{ResolveError, Resolver, Srv};

use super::dns;
use super::source::Report;
use super::target::Target;

/// A name of the form `_service._proto.name`.
#[derive(Debug)]
pub(crate) struct Records {
    pub(crate) name: String,
    pub(crate) resolver: Resolver,
}

impl Records {
    pub(crate) async fn follow(&self, report: &Report) {
        let tell = |answer: Result<Vec<Srv>, String>| match answer {
            Ok(records) => {
                let (targets, trouble) = targets(&records);
                report.found(targets, trouble);
            }
            Err(error) => report.failed(error),
        };
        dns::follow(&self.name, || self.look(), tell).await;
    }

    async fn look(&self) -> Result<(Vec<Srv>, Duration), ResolveError> {
        self.resolver.lookup_srv(&self.name).await
    }
}

fn targets(records: &[Srv]) -> (Vec<Target>, Option<String>) {
    let offered = records.iter().filter(|record| record.target != ".");
    let mut trouble = None;
    let chosen = offered.filter_map(|record| {
        let target = Target::new(record.target.trim_end_matches('.'), record.port);
        if target.is_none() {
            trouble = Some(format!("`{}` port {} is no endpoint", record.target, record.port));
        }
        target.map(|target| Target { weight: record.weight.max(1).into(), priority: record.priority.into(), ..target })
    });
    let chosen = chosen.collect();
    (chosen, trouble)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(priority: u16, weight: u16, port: u16, target: &str) -> Srv {
        Srv { priority, weight, port, target: target.to_owned() }
    }

    #[test]
    fn weights_and_priorities_are_kept() {
        let records = [record(20, 9, 1, "spare."), record(10, 3, 2, "A.internal."), record(10, 0, 3, "b.internal.")];
        let (found, trouble) = targets(&records);
        let found: Vec<_> = found.iter().map(|one| (&*one.host, one.port, one.weight, one.priority)).collect();
        assert_eq!(found, [("spare", 1, 9, 20), ("a.internal", 2, 3, 10), ("b.internal", 3, 1, 10)]);
        assert_eq!(trouble, None);
    }

    #[test]
    fn a_lone_dot_is_no_service_and_a_bad_record_is_told() {
        assert_eq!(targets(&[record(0, 0, 0, ".")]), (Vec::new(), None));
        let (found, trouble) = targets(&[record(0, 1, 0, "a.internal."), record(0, 1, 80, "b.internal.")]);
        assert_eq!((found.len(), trouble.as_deref()), (1, Some("`a.internal.` port 0 is no endpoint")));
    }
}
