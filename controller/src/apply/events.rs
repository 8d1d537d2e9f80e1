//! Writes: Events on Services. A repeated problem is counted on its first Event, also by another replica or after a restart.

use super::Error;
use crate::service_status::problem::Problem;
use api::ObjectName;
use k8s_openapi::api::core::v1::ObjectReference;
use process::events::{self, Event, EventType, Publisher, Series};

/// Publishes a problem as an Event on the Service `regarding`.
pub(super) async fn publish(
    publisher: &Publisher,
    regarding: ObjectReference,
    problem: &Problem,
    service: &ObjectName,
) -> Result<(), Error> {
    let result = publisher.publish(&event(regarding, problem)).await;
    result.map_err(|error| match error {
        events::Error::Api(source) => Error::Event {
            service: service.clone(),
            reason: problem.reason.as_str(),
            source,
        },
        events::Error::Timeout => Error::Timeout,
    })
}

fn event(regarding: ObjectReference, problem: &Problem) -> Event {
    let reason = problem.reason.as_str();
    Event {
        series: Series::OfMessage(problem.message.clone()),
        ..Event::new(
            regarding,
            EventType::Warning,
            reason,
            "ReconcileEndpoints",
            problem.text(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service_status::problem::Reason;

    /// The condition contains the message, and the next process publishes only what the condition does not contain.
    #[test]
    fn the_pods_that_a_problem_was_seen_on_are_in_its_note_and_do_not_make_it_another_event() {
        let on = |pod: &str| {
            let problem = Problem::new(Reason::NoPodsAttached, "no pod is attached").seen_on([pod]);
            event(ObjectReference::default(), &problem)
        };
        assert_eq!(on("web-1").note, "no pod is attached; seen on: web-1");
        assert_eq!(on("web-1").series, on("web-2").series);
    }
}
