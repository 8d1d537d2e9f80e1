//! Edits of a few rules of a long chain, one by one; the others stay unchanged.
//!
//! Pure. Rules are known by their numbers, as `iptables -S` would list them. That is safe for known rules; where another process
//! may have written, the namespace is read first, and drift is rebuilt.

/// Change of one rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    /// Chain.
    pub chain: String,
    /// Number of the rule, from 1, after the preceding edits.
    pub number: usize,
    /// Action.
    pub action: Action,
}

/// Action on a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Replace by this rule.
    Replace(String),
    /// Insert this rule before it.
    Insert(String),
    /// Delete.
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

/// Limit of edits: finding a rule costs the program more than adding one.
const FEWER: usize = 4;

/// Returns the edits that change the parts of a chain to other parts, aligned at their last rules. `None`: writing the chain again is
/// cheaper.
pub(super) fn edits(chain: &str, held: &[&[String]], wanted: &[&[String]]) -> Option<Vec<Edit>> {
    let most = wanted.iter().map(|part| part.len()).sum::<usize>() / FEWER;
    let mut edits = Vec::new();
    let mut above: usize = held.iter().map(|part| part.len()).sum();
    // From the end, so that the numbers of preceding rules do not change.
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

/// Applies the edits to a chain.
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
        fn edits_transform_one_chain_into_the_other(held in [part(), part()], wanted in [part(), part()]) {
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
