//! What the API says of policies, carried into the plan.
//!
//! Pods and namespaces of the whole cluster are asked for only when there is a policy: a cluster without one pays nothing.

use std::future::pending;

use client::informer::{Delta, Events, SharedInformers};

use super::objects::{NamespaceObject, PodObject, PolicyObject};
use super::plan::Plan;

/// The news that policies depend on.
pub(crate) struct PolicyWatch {
    informers: SharedInformers,
    policies: Events<PolicyObject>,
    policies_synced: bool,
    subjects: Option<Subjects>,
}

/// What policies are about.
struct Subjects {
    pods: Events<PodObject>,
    pods_synced: bool,
    namespaces: Events<NamespaceObject>,
    namespaces_synced: bool,
}

/// A piece of news.
pub(crate) enum News {
    Policy(Delta<PolicyObject>),
    Pod(Delta<PodObject>),
    Namespace(Delta<NamespaceObject>),
}

// === impl PolicyWatch ===

impl PolicyWatch {
    pub(crate) fn start(informers: &SharedInformers) -> PolicyWatch {
        PolicyWatch {
            policies: informers.informer::<PolicyObject>().subscribe(),
            informers: informers.clone(),
            policies_synced: false,
            subjects: None,
        }
    }

    /// Whether all policies are known.
    pub(crate) fn knows_policies(&self) -> bool {
        self.policies_synced
    }

    /// The next news; none when there will be none any more. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Option<News> {
        let subjects = self.subjects.as_mut();
        let (pods, namespaces) = subjects.map_or((None, None), |it| (Some(&mut it.pods), Some(&mut it.namespaces)));
        let pod = async {
            match pods {
                Some(pods) => pods.next().await,
                None => pending().await,
            }
        };
        let namespace = async {
            match namespaces {
                Some(namespaces) => namespaces.next().await,
                None => pending().await,
            }
        };
        tokio::select! {
            delta = self.policies.next() => delta.map(News::Policy),
            delta = pod => delta.map(News::Pod),
            delta = namespace => delta.map(News::Namespace),
        }
    }

    /// The next news if it is there already.
    pub(crate) fn try_next(&mut self) -> Option<News> {
        if let Some(delta) = self.policies.try_next() {
            return Some(News::Policy(delta));
        }
        let subjects = self.subjects.as_mut()?;
        if let Some(delta) = subjects.namespaces.try_next() {
            return Some(News::Namespace(delta));
        }
        subjects.pods.try_next().map(News::Pod)
    }

    /// Carries a piece of news into the plan.
    pub(crate) fn take(&mut self, news: News, plan: &mut Plan) {
        match news {
            News::Policy(Delta::Added(policy) | Delta::Updated { new: policy, .. }) => {
                plan.learn();
                plan.set_policy(&policy.object_name(), Some(&policy.view()));
                if self.subjects.is_none() {
                    self.subjects = Some(Subjects::start(&self.informers));
                }
            }
            News::Policy(Delta::Deleted(policy)) => plan.set_policy(&policy.object_name(), None),
            News::Policy(Delta::Synced) => self.policies_synced = true,
            News::Pod(Delta::Added(pod) | Delta::Updated { new: pod, .. }) => {
                plan.set_pod(&pod.object_name(), Some(pod.view()));
            }
            News::Pod(Delta::Deleted(pod)) => plan.set_pod(&pod.object_name(), None),
            News::Namespace(Delta::Added(namespace) | Delta::Updated { new: namespace, .. }) => {
                plan.set_namespace(namespace.name(), Some(namespace.labels()));
            }
            News::Namespace(Delta::Deleted(namespace)) => plan.set_namespace(namespace.name(), None),
            News::Pod(Delta::Synced) => self.subjects.iter_mut().for_each(|it| it.pods_synced = true),
            News::Namespace(Delta::Synced) => self.subjects.iter_mut().for_each(|it| it.namespaces_synced = true),
        }
        let knows_subjects = self
            .subjects
            .as_ref()
            .is_some_and(|it| it.pods_synced && it.namespaces_synced);
        if self.policies_synced && knows_subjects {
            plan.enforce();
        }
    }
}

impl Subjects {
    fn start(informers: &SharedInformers) -> Subjects {
        Subjects {
            pods: informers.informer::<PodObject>().subscribe(),
            pods_synced: false,
            namespaces: informers.informer::<NamespaceObject>().subscribe(),
            namespaces_synced: false,
        }
    }
}
