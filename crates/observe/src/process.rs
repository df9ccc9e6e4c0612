//! What the system says of this process: memory, processor time, file descriptors. From `/proc`; elsewhere nothing.

use std::fs;

/// The figures of one look; those that the system does not tell are absent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Process {
    /// Bytes of memory that are resident.
    pub(crate) resident: Option<u64>,
    /// Processor time, user and system, in hundredths of a second.
    pub(crate) cpu: Option<u64>,
    /// Open file descriptors.
    pub(crate) descriptors: Option<u64>,
}

impl Process {
    /// Looks now: three small reads, for the control plane.
    pub(crate) fn look() -> Self {
        Self {
            resident: fs::read_to_string("/proc/self/status").ok().as_deref().and_then(resident_in),
            cpu: fs::read_to_string("/proc/self/stat").ok().as_deref().and_then(cpu),
            // The folder that is being read is open itself.
            descriptors: fs::read_dir("/proc/self/fd").ok().map(|all| (all.count() as u64).saturating_sub(1)),
        }
    }
}

/// Bytes of memory of this process that are resident, where the system tells: one small read, for the control plane.
pub fn resident() -> Option<u64> {
    fs::read_to_string("/proc/self/status").ok().as_deref().and_then(resident_in)
}

fn resident_in(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// Fields 14 and 15 (`proc_pid_stat(5)`), which the kernel shows in hundredths of a second on every architecture that we
/// build for. The second field, the name, may hold spaces and ends with the last parenthesis.
fn cpu(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    user.checked_add(system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_spaces_and_parentheses_does_not_shift_the_fields() {
        let stat = "42 (a) b (c)) S 1 42 42 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 1 0 1 1 1";
        assert_eq!(cpu(stat), Some(300));
        assert_eq!(cpu("nonsense"), None);
        assert_eq!(resident_in("Name:\tx\nVmRSS:\t   2048 kB\n"), Some(2_097_152));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_has_memory_and_descriptors() {
        let process = Process::look();
        assert!(process.resident > Some(100_000) && process.descriptors >= Some(3) && process.cpu.is_some());
    }
}
