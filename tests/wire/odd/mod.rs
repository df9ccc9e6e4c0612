//! The same odd requests through Pylon, nginx and HAProxy, each before a service that reads strictly: every difference of
//! what becomes of a request falls into a class that says why, and the classes stand in the manual.

mod classes;
mod outcome;
mod page;
mod requests;

use std::collections::BTreeMap;

use classes::{CLASSES, Difference};
use outcome::{Lane, Outcome, Which};
use pylon_testkit::haproxy::Haproxy;
use pylon_testkit::nginx::Nginx;
use requests::Odd;

/// Each proxy has so many copies, each with a service of its own, so that requests are told apart by their order.
const LANES: usize = 4;

#[test]
fn every_difference_to_nginx_and_haproxy_is_explained() {
    let all = requests::all();
    assert!(all.len() >= 1000, "{}", all.len());
    let [pylon, nginx, haproxy] = std::thread::scope(|scope| {
        [Which::Pylon, Which::Nginx, Which::Haproxy]
            .map(|which| [(); LANES].map(|()| which).into_iter().enumerate())
            .map(|lanes| {
                let all = &all;
                lanes.map(|(lane, which)| scope.spawn(move || run(which, lane, all))).collect::<Vec<_>>()
            })
            .map(|lanes| {
                let mut outcomes: Vec<(usize, Outcome)> =
                    lanes.into_iter().flat_map(|lane| lane.join().unwrap()).collect();
                outcomes.sort_by_key(|(index, _)| *index);
                outcomes.into_iter().map(|(_, outcome)| outcome).collect::<Vec<_>>()
            })
    });
    let mut found: BTreeMap<usize, Vec<Difference<'_>>> = BTreeMap::new();
    let mut unexplained = Vec::new();
    for (index, odd) in all.iter().enumerate() {
        assert!(pylon[index].is_sound(), "{}: {}: {:?}", odd.family, odd.name, pylon[index]);
        for (peer, theirs) in [("nginx", &nginx[index]), ("HAProxy", &haproxy[index])] {
            let difference = Difference { odd, peer, ours: &pylon[index], theirs };
            if difference.ours.class == difference.theirs.class {
                continue;
            }
            match CLASSES.iter().position(|class| (class.holds)(&difference)) {
                Some(class) => found.entry(class).or_default().push(difference),
                None => unexplained.push(difference.to_string()),
            }
        }
    }
    let page = page::write(&all, &found, [&pylon[..], &nginx[..], &haproxy[..]]);
    std::fs::write(page::made(), &page).unwrap();
    assert!(unexplained.is_empty(), "{} differences are in no class:\n{}", unexplained.len(), unexplained.join("\n"));
    if page::versions(&page::kept()) == Some((Nginx::version(), Haproxy::version())) {
        let idle: Vec<&str> =
            (0..CLASSES.len()).filter(|class| !found.contains_key(class)).map(|class| CLASSES[class].name).collect();
        assert!(idle.is_empty(), "classes without a request: {idle:?}");
        assert_eq!(
            page::shape(&page::kept()),
            page::shape(&page),
            "the manual tells something else: copy {} there",
            page::made().display()
        );
    }
}

/// Every so manieth request, so that those that take long are shared.
fn run(which: Which, lane: usize, all: &[Odd]) -> Vec<(usize, Outcome)> {
    let proxy = Lane::start(which);
    let share = all.iter().enumerate().skip(lane).step_by(LANES);
    share.map(|(index, odd)| (index, proxy.outcome(&odd.bytes))).collect()
}
