//! Changes of a set of objects.
//!
//! Pure. A list replaces the set only when it is complete, so that a watch that lists again removes nothing meanwhile.

use super::{Event, Guarded};
use futures::{Stream, StreamExt};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// Change of a set of objects; `D` identifies a deleted one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change<T, D> {
    /// Added or changed.
    Apply(T),
    /// Deleted.
    Delete(D),
    /// Complete list: replaces the set.
    Reset(Vec<T>),
}

/// Returns the changes of a set. Each object is passed to `read` when it arrives: of an incomplete list only the results are kept.
pub fn changes<K, T, D>(
    events: impl Stream<Item = Event<K>> + Send,
    read: fn(&Guarded<K>) -> T,
    deleted: fn(&ObjectMeta) -> D,
) -> impl Stream<Item = Change<T, D>> + Send
where
    K: Send,
    T: Send,
    D: Send,
{
    let mut incomplete = None::<Vec<T>>;
    events.filter_map(move |event| {
        let change = match event {
            Event::ListStarted => {
                incomplete = Some(Vec::new());
                None
            }
            Event::Listed(object) => {
                incomplete
                    .get_or_insert_default()
                    .push(read(&Guarded(Ok(object))));
                None
            }
            Event::ListDone => Some(Change::Reset(incomplete.take().unwrap_or_default())),
            Event::Applied(object) => Some(Change::Apply(read(&Guarded(Ok(object))))),
            Event::Deleted(metadata) => Some(Change::Delete(deleted(&metadata))),
            Event::Unreadable(unreadable) => {
                let object = read(&Guarded(Err(unreadable)));
                match &mut incomplete {
                    Some(listed) => {
                        listed.push(object);
                        None
                    }
                    None => Some(Change::Apply(object)),
                }
            }
        };
        std::future::ready(change)
    })
}

#[cfg(test)]
mod tests {
    use super::super::Unreadable;
    use super::*;
    use Event::{Applied, Deleted, ListDone, ListStarted, Listed};
    use futures::{FutureExt, stream};

    fn fed(events: Vec<Event<u8>>) -> Vec<String> {
        let read = |object: &Guarded<u8>| *object.0.as_ref().unwrap_or(&0);
        let name = |metadata: &ObjectMeta| metadata.name.clone().unwrap_or_default();
        let changes = changes(stream::iter(events), read, name);
        let all = changes.map(|change| format!("{change:?}")).collect();
        all.now_or_never().unwrap()
    }

    fn named(name: &str) -> ObjectMeta {
        ObjectMeta {
            name: Some(name.to_owned()),
            ..ObjectMeta::default()
        }
    }

    #[test]
    fn a_list_takes_effect_only_when_it_is_complete() {
        assert_eq!(fed(vec![ListStarted, Listed(1), Listed(2)]), Vec::<String>::new());
        let interrupted = vec![
            ListStarted,
            Listed(1),
            ListStarted,
            Listed(3),
            ListDone,
            Applied(4),
            Deleted(Box::new(named("3"))),
        ];
        assert_eq!(fed(interrupted), ["Reset([3])", "Apply(4)", "Delete(\"3\")"]);
    }

    #[test]
    fn an_undecodable_object_is_part_of_the_list_or_a_change() {
        let unreadable = || {
            let error = "invalid type".to_owned();
            let metadata = named("bad");
            Event::Unreadable(Box::new(Unreadable { error, metadata }))
        };
        let events = vec![ListStarted, Listed(1), unreadable(), ListDone, unreadable()];
        assert_eq!(fed(events), ["Reset([1, 0])", "Apply(0)"]);
    }
}
