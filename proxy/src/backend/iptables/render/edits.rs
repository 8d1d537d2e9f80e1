//! Few rules of a long chain change: one by one, the others stay as they are.
//!
//! Pure. Rules are known by their numbers, as `iptables -S` would list them. That is safe for what is known to be there; where somebody else
//! may have written the namespace is read first, and what is damaged is rebuilt.

/// A change of one rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    /// Of which chain.
    pub chain: String,
    /// Counted from 1, when the edits before are made.
    pub number: usize,
    /// What is done.
    pub action: Action,
}

/// What is done with a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// It becomes this one.
    Replace(String),
    /// This one is put before it.
    Insert(String),
    /// It goes.
    Delete,
}

impl Edit {
    /// Adds its line to the input of `iptables-restore`.
    pub(super) fn write(&self, text: &mut String) {
        let number = self.number.to_string();
        let (command, rule) = match &self.action {
            Action::Replace(rule) => ("-R ", Some(rule)),
            Action::Insert(rule) => ("-I ", Some(rule)),
            Action::Delete => ("-D ", None),
        };
        text.extend([command, &self.chain, " ", &number]);
        if let Some(rule) = rule {
            text.extend([" ", rule]);
        }
        text.push('\n');
    }
}

/// To look for a rule costs the program more than to add one.
const FEWER: usize = 4;

/// What leads from the parts of a chain to others, whose last rules belong together: from part to part of each. `None`: it is less to
/// write the chain again.
pub(super) fn edits(chain: &str, held: &[&[String]], wanted: &[&[String]]) -> Option<Vec<Edit>> {
    let most = wanted.iter().map(|part| part.len()).sum::<usize>() / FEWER;
    let mut edits = Vec::new();
    let mut above: usize = held.iter().map(|part| part.len()).sum();
    // From the end, so that the numbers of the rules before stay what they are.
    for (held, wanted) in held.iter().zip(wanted).rev() {
        above -= held.len();
        edits.extend(of_part(chain, above, held, wanted).take(most + 1));
        if edits.len() > most {
            return None;
        }
    }
    Some(edits)
}

fn of_part<'a>(
    chain: &'a str,
    above: usize,
    held: &'a [String],
    wanted: &'a [String],
) -> impl Iterator<Item = Edit> + use<'a> {
    let edit = move |number, action| Edit {
        chain: chain.to_owned(),
        number: above + number,
        action,
    };
    let (more, fewer) = (
        wanted.len().saturating_sub(held.len()),
        held.len().saturating_sub(wanted.len()),
    );
    let both = (fewer + 1..).zip(&held[fewer..]).zip(&wanted[more..]);
    let replaced = both.filter(|((_, held), wanted)| held != wanted);
    let replaced = replaced.map(move |((number, _), rule)| edit(number, Action::Replace(rule.clone())));
    let deleted = (0..fewer).map(move |_| edit(1, Action::Delete));
    let first = wanted[..more].iter().rev();
    let inserted = first.map(move |rule| edit(1, Action::Insert(rule.clone())));
    replaced.chain(deleted).chain(inserted)
}

/// What a chain is after these edits.
#[cfg(test)]
pub(super) fn made(mut rules: Vec<String>, edits: &[&Edit]) -> Vec<String> {
    for Edit { number, action, .. } in edits {
        match action {
            Action::Replace(rule) => rules[number - 1].clone_from(rule),
            Action::Insert(rule) => rules.insert(number - 1, rule.clone()),
            Action::Delete => _ = rules.remove(number - 1),
        }
    }
    rules
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A part of a chain, in which few rules differ from those of another.
    fn part() -> impl Strategy<Value = Vec<String>> {
        let rule = prop::sample::select(vec!["a", "a", "a", "a", "a", "a", "a", "a", "a", "b"]);
        prop::collection::vec(rule.prop_map(str::to_owned), 0..40)
    }

    proptest! {
        #[test]
        fn edits_lead_from_one_chain_to_the_other(held in [part(), part()], wanted in [part(), part()]) {
            let (old, new) = (held.each_ref().map(Vec::as_slice), wanted.each_ref().map(Vec::as_slice));
            if let Some(edits) = edits("C", &old, &new) {
                let edits: Vec<&Edit> = edits.iter().collect();
                prop_assert_eq!(made(held.concat(), &edits), wanted.concat());
                prop_assert!(edits.len() <= wanted.concat().len() / FEWER);
            }
        }
    }

    #[test]
    fn one_rule_of_many_is_one_edit() {
        let chain = |rules: &[&str]| -> Vec<String> { rules.iter().map(ToString::to_string).collect() };
        let held = chain(&["4", "3", "2", "1", "0"]);
        let of = |wanted: &[&str]| {
            let mut text = String::new();
            let edits = edits("C", &[&held], &[&chain(wanted)]);
            edits.unwrap().iter().for_each(|edit| edit.write(&mut text));
            text
        };
        assert_eq!(of(&["4", "3", "x", "1", "0"]), "-R C 3 x\n");
        assert_eq!(of(&["5", "4", "3", "2", "1", "0"]), "-I C 1 5\n");
        assert_eq!(of(&["3", "2", "1", "0"]), "-D C 1\n");
        assert_eq!(
            edits("C", &[&held], &[&chain(&["b", "a", "2", "1", "0"])]),
            None,
            "the whole chain is less"
        );
    }
}
