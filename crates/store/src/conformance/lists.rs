//! Lists of jobs and places in the line.

use std::{collections::BTreeSet, time::Duration};

use darkroom_core::{Clock, JobId, JobState};

use super::{
    World, done, tests,
    world::{endpoint, external, tenant},
};
use crate::jobs::{JobFilter, OnDuplicate, Page, Place};

const ALL: Page = Page {
    limit: 1000,
    after: None,
};

async fn ids(world: &World, filter: JobFilter, page: Page) -> Vec<JobId> {
    world
        .store()
        .jobs(filter, page)
        .await
        .unwrap()
        .iter()
        .map(|job| job.id)
        .collect()
}

tests! {
    async fn pages_join_without_gaps_or_repeats_in_both_orders(world: World) {
        let mut accepted = Vec::new();
        for _ in 0..7 {
            accepted.push(world.accept_one().await);
        }
        for oldest_first in [true, false] {
            let mut seen = Vec::new();
            loop {
                let filter = JobFilter { oldest_first, ..JobFilter::default() };
                let page = ids(&world, filter, Page { limit: 3, after: seen.last().copied() }).await;
                if page.is_empty() {
                    break;
                }
                seen.extend(page);
            }
            if !oldest_first {
                seen.reverse();
            }
            assert_eq!(seen, accepted);
        }
    }

    async fn every_filter_filters(world: World) {
        let mut other_tenant = world.new_job();
        other_tenant.tenant = tenant("u");
        let other_tenant = world.accept(other_tenant).await;
        let mut other_endpoint = world.new_job();
        other_endpoint.endpoint = "other".parse().unwrap();
        let other_endpoint = world.accept(other_endpoint).await;
        let mut native = world.new_job();
        native.meta.dialect = "native".to_owned();
        let native = world.accept(native).await;
        world.clock.advance(Duration::from_secs(10));
        let later = world.clock.now();
        let mut named = world.new_job();
        named.external_id = external("图-100%_x", OnDuplicate::Reject);
        let named = world.accept(named).await;
        let mut running = world.new_job();
        running.priority = 1;
        let running = world.accept(running).await;
        let held = world.claim_lease().await;
        let all: BTreeSet<_> = [other_tenant, other_endpoint, native, named, running].into();

        let check = async |filter: JobFilter, expected: &[JobId]| {
            let found: BTreeSet<_> = ids(&world, filter.clone(), ALL).await.into_iter().collect();
            assert_eq!(found, expected.iter().copied().collect(), "{filter:?}");
        };
        let any = JobFilter::default;
        check(any(), &all.iter().copied().collect::<Vec<_>>()).await;
        check(JobFilter { tenant: Some(tenant("u")), ..any() }, &[other_tenant]).await;
        check(JobFilter { endpoint: Some("other".parse().unwrap()), ..any() }, &[other_endpoint]).await;
        check(JobFilter { endpoint: Some("none".parse().unwrap()), ..any() }, &[]).await;
        let of = |names: &[&str]| Some(names.iter().map(|name| name.parse().unwrap()).collect());
        check(JobFilter { endpoints: of(&["other", "none"]), ..any() }, &[other_endpoint]).await;
        check(JobFilter { endpoints: of(&["other", endpoint().as_str()]), ..any() }, &all.iter().copied().collect::<Vec<_>>()).await;
        check(JobFilter { endpoints: of(&[]), ..any() }, &[]).await;
        check(JobFilter { endpoints: of(&["other"]), endpoint: Some(endpoint()), ..any() }, &[]).await;
        check(JobFilter { dialect: Some("native".to_owned()), ..any() }, &[native]).await;
        check(JobFilter { created_from: Some(later), ..any() }, &[named, running]).await;
        check(JobFilter { created_before: Some(later), ..any() }, &[other_tenant, other_endpoint, native]).await;
        check(JobFilter { started_from: Some(later), ..any() }, &[running]).await;
        check(JobFilter { started_before: Some(later), ..any() }, &[]).await;
        let after_all = later.plus(Duration::from_secs(1));
        check(JobFilter { started_before: Some(after_all), ..any() }, &[running]).await;
        check(JobFilter { attempted: Some(true), ..any() }, &[running]).await;
        let rest = [other_tenant, other_endpoint, native, named];
        check(JobFilter { attempted: Some(false), ..any() }, &rest).await;
        check(JobFilter { external_id_prefix: Some("图-1".to_owned()), ..any() }, &[named]).await;
        check(JobFilter { external_id_prefix: Some("图-1%".to_owned()), ..any() }, &[]).await;
        check(JobFilter { states: vec![JobState::Running], ..any() }, &[running]).await;
        world.finish(held, done()).await;
        let open = vec![JobState::Queued, JobState::Running];
        let mine = JobFilter { tenant: Some(tenant("t")), endpoint: Some(endpoint()), states: open, ..any() };
        check(mine, &[native, named]).await;
        check(JobFilter { states: vec![JobState::Succeeded, JobState::Failed], ..any() }, &[running]).await;
    }

    async fn waiting_jobs_are_listed_as_they_are_served_and_records_as_they_are_asked_for(world: World) {
        let first = world.accept_one().await;
        let mut high = world.new_job();
        high.priority = 3;
        let high = world.accept(high).await;
        let last = world.accept_one().await;
        let mut other = world.new_job();
        other.tenant = tenant("u");
        world.accept(other).await;
        let waiting = async |limit| world.store().waiting(&tenant("t"), &endpoint(), limit).await.unwrap();
        assert_eq!(waiting(10).await, [high, first, last]);
        assert_eq!(waiting(2).await, [high, first]);
        world.store().move_job(None, last, Place::First).await.unwrap();
        let moved = waiting(10).await;
        assert!(moved.iter().position(|job| *job == last) < moved.iter().position(|job| *job == first));
        let held = world.claim_lease().await;
        assert!(!waiting(10).await.contains(&held.job));

        let unknown = world.new_job().id;
        let records = world.store().records(vec![last, unknown, high]).await.unwrap();
        assert_eq!(records.iter().map(|job| job.id).collect::<Vec<_>>(), [last, high]);
    }

    async fn jobs_are_found_by_labels_in_pages_as_long_as_they_are_there(world: World) {
        let labelled = |tenant_name: &str, labels: &[(&str, &str)]| {
            let mut job = world.new_job();
            job.tenant = tenant(tenant_name);
            job.meta.labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            job
        };
        let mut accepted = Vec::new();
        for n in 0..5 {
            let odd = if n % 2 == 1 { "yes" } else { "no" };
            accepted.push(world.accept(labelled("t", &[("run", "7/8 ünï"), ("odd", odd)])).await);
        }
        world.accept(labelled("t", &[("run", "other"), ("odd", "yes")])).await;
        world.accept(labelled("u", &[("run", "7/8 ünï"), ("odd", "yes")])).await;
        world.accept_one().await;
        let with = |labels: &[(&str, &str)]| JobFilter {
            tenant: Some(tenant("t")),
            endpoint: Some(endpoint()),
            labels: labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            ..JobFilter::default()
        };
        for oldest_first in [true, false] {
            let mut seen = Vec::new();
            loop {
                let filter = JobFilter { oldest_first, ..with(&[("run", "7/8 ünï")]) };
                let page = ids(&world, filter, Page { limit: 2, after: seen.last().copied() }).await;
                if page.is_empty() {
                    break;
                }
                seen.extend(page);
            }
            if !oldest_first {
                seen.reverse();
            }
            assert_eq!(seen, accepted);
        }
        let odd = ids(&world, with(&[("run", "7/8 ünï"), ("odd", "yes")]), ALL).await;
        assert_eq!(odd, [accepted[3], accepted[1]]);
        let queued = JobFilter { states: vec![JobState::Queued], ..with(&[("odd", "no")]) };
        assert_eq!(ids(&world, queued, ALL).await, [accepted[4], accepted[2], accepted[0]]);
        assert!(ids(&world, with(&[("run", "7/8 ünï"), ("odd", "maybe")]), ALL).await.is_empty());
        let record = world.store().job(None, accepted[0]).await.unwrap().unwrap();
        assert_eq!(record.meta.labels["run"], "7/8 ünï");
        world.store().cancel(None, accepted[0]).await.unwrap();
        world.store().delete_job(None, accepted[0]).await.unwrap();
        assert_eq!(ids(&world, with(&[("odd", "no")]), ALL).await, [accepted[4], accepted[2]]);
    }

    async fn jobs_are_found_by_an_option_of_their_dialect(world: World) {
        let mut mine = world.new_job();
        mine.meta.options = serde_json::json!({"client_id": "一'\""});
        let mine = world.accept(mine).await;
        let mut other = world.new_job();
        other.meta.options = serde_json::json!({"client_id": "other"});
        world.accept(other).await;
        world.accept_one().await;
        let with = |text: &str| JobFilter {
            option: Some(("client_id", text.to_owned())),
            states: vec![JobState::Queued, JobState::Running],
            tenant: Some(tenant("t")),
            ..JobFilter::default()
        };
        assert_eq!(ids(&world, with("一'\""), ALL).await, [mine]);
        assert!(ids(&world, with("none"), ALL).await.is_empty());
    }

    async fn a_place_in_the_line_counts_what_stands_before(world: World) {
        let a = world.accept_one().await;
        let mut second = world.new_job();
        second.tenant = tenant("u");
        let b = world.accept(second).await;
        let c = world.accept_one().await;
        let mut high = world.new_job();
        high.priority = 9;
        let high = world.accept(high).await;
        let place = async |id| world.store().positions(&[id]).await.unwrap().get(&id).copied();
        assert_eq!(
            [place(high).await, place(a).await, place(b).await, place(c).await],
            [Some(0), Some(1), Some(2), Some(3)],
        );
        world.claim_lease().await;
        assert_eq!([place(high).await, place(a).await, place(c).await], [None, Some(0), Some(2)]);
        assert_eq!(place(world.new_job().id).await, None);
        let all = world.store().positions(&[c, high, a, b, world.new_job().id]).await.unwrap();
        assert_eq!(all.into_iter().collect::<Vec<_>>(), [(a, 0), (b, 1), (c, 2)], "many at once");
    }
}
