//! Where a call runs: resource configs are names for endpoints, and `default` is the workflow's own.

use darkroom_core::EndpointName;

use crate::service::{Error, Service};

/// The shared pool's name.
pub const DEFAULT: &str = "default";

/// A dedicated resource config (`[resources.NAME]`).
#[derive(Debug, Clone, PartialEq)]
pub struct Pool {
    /// Which endpoint it is.
    pub endpoint: EndpointName,
    /// Jobs per instance, waiting ones included, from which on it takes no more; `None`: no bound.
    pub load_limit: Option<u32>,
}

/// Why no endpoint was found for a call.
#[derive(Debug, thiserror::Error)]
pub enum NoResource {
    /// There is no such resource config.
    #[error("there is no resource config '{0}'")]
    Unknown(String),
    /// The caller may not use it.
    #[error("this application may not use the resource '{0}'")]
    Forbidden(String),
    /// All of them have as much to do as they take.
    #[error(
        "all resources asked for ({0}) are busy beyond their limits; add 'default' to fall back to the shared pool"
    )]
    Busy(String),
    /// Something else went wrong.
    #[error(transparent)]
    Service(#[from] Error),
}

impl Service {
    /// The endpoint that runs a call (`protocols/speedpix.md` §4): of dedicated ones the least loaded below its limit, else
    /// the workflow's own if `default` is among the wishes or nothing is.
    ///
    /// # Errors
    /// [`NoResource`].
    pub(super) async fn choose_endpoint(
        &self,
        own: &EndpointName,
        wishes: &[String],
        may: &(dyn Fn(&EndpointName) -> bool + Send + Sync),
    ) -> Result<EndpointName, NoResource> {
        let mut dedicated = Vec::new();
        let mut shared = wishes.is_empty();
        for wish in wishes {
            if wish == DEFAULT {
                shared = true;
                continue;
            }
            let pool = self
                .pool(wish)
                .ok_or_else(|| NoResource::Unknown(wish.chars().take(80).collect()))?;
            if !may(&pool.endpoint) {
                return Err(NoResource::Forbidden(wish.clone()));
            }
            dedicated.push(pool);
        }
        if !dedicated.is_empty() {
            let counters = self.store.counters().await.map_err(Error::from)?;
            let loads: Vec<Option<f64>> = dedicated
                .iter()
                .map(|pool| {
                    let jobs = counters
                        .get(&pool.endpoint)
                        .map_or(0, |of| of.queued + of.running + of.collecting);
                    let instances = self
                        .endpoint(&pool.endpoint)
                        .map_or(1, |e| e.scaling.max_instances.max(1));
                    let load = jobs as f64 / f64::from(instances);
                    pool.load_limit
                        .is_none_or(|limit| load < f64::from(limit))
                        .then_some(load)
                })
                .collect();
            if let Some(chosen) = least(&loads) {
                return Ok(dedicated.swap_remove(chosen).endpoint);
            }
            if !shared {
                return Err(NoResource::Busy(wishes.join(", ")));
            }
        }
        match may(own) {
            true => Ok(own.clone()),
            false => Err(NoResource::Forbidden(DEFAULT.to_owned())),
        }
    }

    /// A configured resource, else the endpoint of that name.
    fn pool(&self, name: &str) -> Option<Pool> {
        if let Some(pool) = self.pools().get(name) {
            return Some(pool.clone());
        }
        let endpoint = self.endpoint(&name.parse().ok()?).ok()?.name.clone();
        Some(Pool {
            endpoint,
            load_limit: None,
        })
    }
}

/// The smallest that there is; of equal ones the first.
fn least(loads: &[Option<f64>]) -> Option<usize> {
    let known = loads
        .iter()
        .enumerate()
        .filter_map(|(at, load)| Some((at, (*load)?)));
    known.min_by(|a, b| a.1.total_cmp(&b.1)).map(|(at, _)| at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::testing::Bench;

    #[test]
    fn the_least_loaded_is_taken_and_of_equal_ones_the_first() {
        assert_eq!(least(&[Some(2.0), Some(1.0), Some(1.0)]), Some(1));
        assert_eq!(least(&[None, Some(9.0)]), Some(1));
        assert_eq!(least(&[None, None]), None);
    }

    #[tokio::test]
    async fn names_lead_to_endpoints_the_caller_may_use() {
        let bench = Bench::configured("[endpoints.default]\n[endpoints.gpu-a]\n[endpoints.gpu-b]\n");
        let pool = |endpoint: &str, load_limit| Pool {
            endpoint: endpoint.parse().unwrap(),
            load_limit,
        };
        bench.service.set_pools(
            [
                ("a".to_owned(), pool("gpu-a", Some(1))),
                ("b".to_owned(), pool("gpu-b", Some(1))),
            ]
            .into(),
        );
        let own: EndpointName = "default".parse().unwrap();
        let choose = async |wishes: &str, may: &(dyn Fn(&EndpointName) -> bool + Send + Sync)| {
            let wishes: Vec<String> = wishes
                .split(',')
                .filter(|w| !w.is_empty())
                .map(str::to_owned)
                .collect();
            let chosen = bench.service.choose_endpoint(&own, &wishes, may).await;
            chosen
                .map(|endpoint| endpoint.to_string())
                .map_err(|e| e.to_string())
        };
        let all = |_: &EndpointName| true;
        assert_eq!(choose("", &all).await.unwrap(), "default");
        assert_eq!(choose("default", &all).await.unwrap(), "default");
        assert_eq!(choose("b,a", &all).await.unwrap(), "gpu-b");
        assert_eq!(
            choose("gpu-a", &all).await.unwrap(),
            "gpu-a",
            "an endpoint's own name does as well"
        );
        assert!(
            choose("nowhere", &all)
                .await
                .unwrap_err()
                .contains("no resource config 'nowhere'")
        );
        let only_default = |endpoint: &EndpointName| endpoint.as_str() == "default";
        assert!(
            choose("a,default", &only_default)
                .await
                .unwrap_err()
                .contains("may not use the resource 'a'")
        );
        let none = |_: &EndpointName| false;
        assert!(choose("", &none).await.unwrap_err().contains("'default'"));
        bench.service.set_pools(
            [
                ("a".to_owned(), pool("gpu-a", Some(0))),
                ("b".to_owned(), pool("gpu-b", Some(1))),
            ]
            .into(),
        );
        assert_eq!(choose("a,b", &all).await.unwrap(), "gpu-b", "a takes nothing");
        assert!(choose("a", &all).await.unwrap_err().contains("busy"));
        assert_eq!(choose("a,default", &all).await.unwrap(), "default");
    }
}
