//! What a caller has, now and at every change, for as long as the caller stays what it is.
//!
//! Every stream of every door is made of this: so that nothing is given out to a process that was not attested a
//! moment before, and every message is a whole state.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::{Stream, StreamExt, stream};
use tokio::sync::watch;
use tonic::Status;

use super::config::Verifiers;
use super::metrics::Counted;
use super::visit::Visit;
use crate::identities::{Bundles, X509State};
use crate::workload::{Depth, Workload};

/// Messages of a stream.
pub(crate) type Messages<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// What a subscriber wants to see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum View {
    /// Its certificates; without any there is nothing to say.
    Svids,
    /// Bundles, which it may have without a certificate.
    Bundles,
}

/// A caller's state as it changes.
pub(crate) struct Subscription {
    visit: Visit,
    view: View,
    depth: watch::Receiver<Depth>,
    standing: Standing,
    /// The bundles of everybody, for a verifier that has no state of its own.
    known: watch::Receiver<Arc<Bundles>>,
    _open: Counted,
}

enum Standing {
    Attested {
        workload: Workload,
        states: watch::Receiver<Arc<X509State>>,
    },
    /// Over TCP.
    Nobody,
}

impl Subscription {
    /// Attests the caller and looks up its state; waits until there is one.
    pub(crate) async fn open(visit: Visit, view: View) -> Result<Self, Status> {
        let identities = Arc::clone(&visit.desk.identities);
        let mut depth = identities.depth();
        let closely = *depth.borrow_and_update();
        let standing = if visit.caller.process.is_none() && view == View::Bundles {
            Standing::Nobody
        } else {
            let workload = visit.attest(closely).await?;
            let states = visit.unless_changed(&workload, identities.x509(&workload)).await?;
            Standing::Attested { workload, states }
        };
        let open = visit.desk.metrics.open_stream(visit.method);
        Ok(Self { visit, view, depth, standing, known: identities.bundles(), _open: open })
    }

    /// The state at this moment: what has ended is not in it.
    pub(crate) async fn current(&mut self) -> Result<Arc<X509State>, Status> {
        let known = Arc::clone(&self.known.borrow_and_update());
        let Standing::Attested { workload, states } = &mut self.standing else {
            return self.bundles_of_a_verifier(&known);
        };
        let state = Arc::clone(&states.borrow_and_update());
        let state = without_the_dead(state, self.visit.desk.clock.now());
        if !state.svids.is_empty() {
            return Ok(state);
        }
        let entitled = self.visit.desk.identities.is_entitled(workload).await;
        match (self.view, entitled) {
            (View::Bundles, true) if !state.bundles.is_empty() => Ok(state),
            (View::Bundles, true) => self.own_bundle(&known),
            (View::Bundles, false) => self.bundles_of_a_verifier(&known),
            (View::Svids, true) => {
                Err(Status::unavailable("the authority has not issued this identity yet; try again"))
            }
            (View::Svids, false) => Err(self.visit.no_identity()),
        }
    }

    /// Waits until there may be something new. May be cancelled at any point.
    ///
    /// # Errors
    /// What the stream has to end with: the caller is not what it was, or the agent stops.
    pub(crate) async fn moved(&mut self) -> Result<(), Status> {
        let stopping = self.visit.desk.stopping.clone();
        let gone = || Status::unavailable("the agent is stopping; connect again");
        match &mut self.standing {
            Standing::Attested { workload, states } => {
                let process = self.visit.process()?;
                let watches_known = self.view == View::Bundles;
                tokio::select! {
                    biased;
                    () = stopping.cancelled() => Err(gone()),
                    error = process.changed(workload) => Err(self.visit.lost(&error)),
                    changed = states.changed() => changed.map_err(|_| gone()),
                    changed = self.depth.changed() => changed.map_err(|_| gone()),
                    changed = self.known.changed(), if watches_known => changed.map_err(|_| gone()),
                }
            }
            Standing::Nobody => tokio::select! {
                biased;
                () = stopping.cancelled() => Err(gone()),
                changed = self.known.changed() => changed.map_err(|_| gone()),
            },
        }
    }

    /// Attests the caller again, as is due before anything new is given out.
    pub(crate) async fn renew(&mut self) -> Result<(), Status> {
        let Standing::Attested { workload, states } = &mut self.standing else { return Ok(()) };
        let depth = *self.depth.borrow_and_update();
        let fresh = self.visit.attest(depth).await?;
        if fresh != *workload {
            // The same program in other circumstances (a label of its pod, a group): perhaps entitled to other things.
            let identities = Arc::clone(&self.visit.desk.identities);
            *states = self.visit.unless_changed(&fresh, identities.x509(&fresh)).await?;
            *workload = fresh;
        }
        Ok(())
    }

    /// Counts a message that is given out.
    pub(crate) fn pushed(&self) {
        self.visit.desk.metrics.push(self.visit.method);
    }

    pub(crate) fn visit(&self) -> &Visit {
        &self.visit
    }

    /// The first message at once, then one for every state that makes another message.
    pub(crate) async fn messages<T>(mut self, render: fn(&X509State) -> T) -> Result<Messages<T>, Status>
    where
        T: PartialEq + Send + 'static,
    {
        let state = self.current().await?;
        let first = Ok(render(&state));
        self.pushed();
        let later = stream::unfold(Some((self, state)), move |subscribed| async move {
            let (mut subscription, last) = subscribed?;
            match subscription.next(&last, render).await {
                Ok(state) => Some((Ok(render(&state)), Some((subscription, state)))),
                Err(status) => Some((Err(status), None)),
            }
        });
        Ok(Box::pin(stream::once(async { first }).chain(later)))
    }

    /// The next state that makes another message than the last one. States are kept, which all streams of a workload
    /// share, and not messages, which hold copies of keys.
    async fn next<T: PartialEq>(
        &mut self,
        last: &X509State,
        render: fn(&X509State) -> T,
    ) -> Result<Arc<X509State>, Status> {
        loop {
            self.moved().await?;
            self.renew().await?;
            let state = self.current().await?;
            if render(&state) != render(last) {
                self.pushed();
                return Ok(state);
            }
        }
    }

    fn bundles_of_a_verifier(&self, known: &Bundles) -> Result<Arc<X509State>, Status> {
        match self.visit.desk.config.verifiers {
            Verifiers::Anybody => self.own_bundle(known),
            Verifiers::Entitled => Err(self.visit.no_identity()),
        }
    }

    fn own_bundle(&self, known: &Bundles) -> Result<Arc<X509State>, Status> {
        let own = &self.visit.desk.config.trust_domain;
        let bundle = known.get(own).ok_or_else(|| {
            Status::unavailable("the agent does not know the bundle of its trust domain yet; try again")
        })?;
        let bundles = Bundles::from([(own.clone(), Arc::clone(bundle))]);
        Ok(Arc::new(X509State { bundles, ..X509State::default() }))
    }
}

/// A state without certificates whose time is over: a peer would refuse them, so nobody gets them.
fn without_the_dead(state: Arc<X509State>, now: chancery_types::Timestamp) -> Arc<X509State> {
    if state.svids.iter().all(|svid| svid.not_after > now) {
        return state;
    }
    let mut living = (*state).clone();
    living.svids.retain(|svid| svid.not_after > now);
    Arc::new(living)
}
