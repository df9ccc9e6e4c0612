//! Which certificate a name gets, and what a look at the files brings.

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, SignatureAlgorithm};
use rustls::SignatureScheme::{ECDSA_NISTP256_SHA256, ED25519, RSA_PSS_SHA256};
use tempfile::TempDir;

use super::*;

fn write(folder: &TempDir, file: &str, names: &[&str], algorithm: &'static SignatureAlgorithm) -> CertificateSpec {
    let key = KeyPair::generate_for(algorithm).unwrap();
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let cert = CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
    let path = |end: &str| folder.path().join(format!("{file}.{end}"));
    std::fs::write(path("pem"), cert.pem()).unwrap();
    std::fs::write(path("key"), key.serialize_pem()).unwrap();
    CertificateSpec { cert: path("pem"), key: path("key") }
}

fn later() -> Duration {
    pylon_observe::clock::unix_now() + Duration::from_secs(60)
}

#[test]
fn exact_names_win_over_wildcards_of_one_label_and_the_first_is_for_all_others() {
    let folder = tempfile::tempdir().unwrap();
    let specs = [("first", "first.test"), ("wild", "*.wild.test"), ("exact", "B.wild.test")]
        .map(|(file, name)| write(&folder, file, &[name], &PKCS_ECDSA_P256_SHA256));
    let certificates = Certificates::load(&specs).unwrap();
    let all = certificates.by_name.load().all.clone();
    for (name, expected) in [
        (Some("first.test"), 0),
        (Some("a.wild.test"), 1),
        (Some("B.WILD.test"), 2),
        (Some("x.a.wild.test"), 0),
        (Some("wild.test"), 0),
        (Some("nobody.test"), 0),
        (Some("localhost"), 0),
        (None, 0),
    ] {
        let chosen = certificates.by_name.load().choose(name, &[ECDSA_NISTP256_SHA256]).unwrap();
        assert!(Arc::ptr_eq(&chosen, &all[expected]), "{name:?}");
    }
}

#[test]
fn of_two_for_one_name_the_client_gets_the_one_that_it_can_verify() {
    let folder = tempfile::tempdir().unwrap();
    let specs = [("edwards", &PKCS_ED25519), ("nist", &PKCS_ECDSA_P256_SHA256)]
        .map(|(file, algorithm)| write(&folder, file, &["a.test"], algorithm));
    let certificates = Certificates::load(&specs).unwrap();
    let by_name = certificates.by_name.load();
    for (schemes, expected) in [
        (&[ECDSA_NISTP256_SHA256][..], Some(1)),
        (&[ED25519], Some(0)),
        (&[ECDSA_NISTP256_SHA256, ED25519], Some(0)),
        (&[RSA_PSS_SHA256], Some(0)),
    ] {
        let chosen = by_name.choose(Some("a.test"), schemes);
        assert_eq!(chosen.map(|key| Arc::as_ptr(&key)), expected.map(|index: usize| Arc::as_ptr(&by_name.all[index])));
    }
}

#[test]
fn a_look_costs_no_reading_where_nothing_changed_and_takes_in_what_did() {
    let folder = tempfile::tempdir().unwrap();
    let spec = write(&folder, "a", &["a.test"], &PKCS_ECDSA_P256_SHA256);
    let certificates = Certificates::load(std::slice::from_ref(&spec)).unwrap();
    assert_eq!(certificates.refresh(later()), []);
    write(&folder, "a", &["b.test"], &PKCS_ECDSA_P256_SHA256);
    assert_eq!(certificates.refresh(later()), [Change::Renewed(spec.cert.clone())]);
    assert_eq!(
        (certificates.refresh(later()), &*certificates.in_force()[0].names),
        (vec![], &["b.test".to_owned()][..])
    );
    std::fs::write(&spec.key, "nonsense").unwrap();
    let refused = certificates.refresh(later());
    assert!(matches!(&refused[..], [Change::Refused(_, trouble)] if trouble.contains("private key")), "{refused:?}");
    // The same trouble is told once.
    assert_eq!(certificates.refresh(later()), []);
    assert!(certificates.in_force()[0].trouble.is_some());
    assert_eq!(certificates.in_force()[0].names, ["b.test"]);
}

#[test]
fn a_file_that_changed_just_now_is_read_again_although_it_looks_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let spec = write(&folder, "a", &["a.test"], &PKCS_ECDSA_P256_SHA256);
    let certificates = Certificates::load(std::slice::from_ref(&spec)).unwrap();
    let cert = std::fs::metadata(&spec.cert).unwrap();
    write(&folder, "a", &["b.test"], &PKCS_ECDSA_P256_SHA256);
    // As if both had been written within one tick of a coarse clock.
    let file = std::fs::File::options().write(true).open(&spec.cert).unwrap();
    file.set_modified(cert.modified().unwrap()).unwrap();
    certificates.pairs[0].state.lock().seen = [Stamp::of(&spec.cert), Stamp::of(&spec.key)];
    let now = pylon_observe::clock::unix_now();
    assert_eq!(certificates.refresh(now), [Change::Renewed(spec.cert)]);
}

#[test]
fn what_cannot_be_used_is_told_with_its_place_and_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let good = write(&folder, "good", &["a.test"], &PKCS_ECDSA_P256_SHA256);
    let other = write(&folder, "other", &["a.test"], &PKCS_ECDSA_P256_SHA256);
    let crossed = CertificateSpec { cert: good.cert.clone(), key: other.key.clone() };
    let absent = CertificateSpec { cert: folder.path().join("absent.pem"), key: good.key.clone() };
    let swapped = CertificateSpec { cert: good.key.clone(), key: good.cert.clone() };
    let wrong = Certificates::load(&[good, crossed, absent, swapped]).unwrap_err();
    let told: Vec<_> = wrong.iter().map(|(index, trouble)| (*index, trouble.as_str())).collect();
    for (told, (index, words)) in told.iter().zip([
        (1, "is not that of the certificate"),
        (2, "absent.pem` cannot be read"),
        (3, "holds no certificate"),
    ]) {
        assert!(told.0 == index && told.1.contains(words), "{told:?}");
    }
    assert_eq!(told.len(), 3);
}
