//! What must change to bring one table to another: the smallest set of steps, in an order that always serves.
//!
//! Owns: the steps, which of them belong together, their order, and how large they are.
//! Called by: `nft_apply`, which writes them.
//! Never: speaks netlink.

use std::collections::BTreeMap;

use crate::nft::{Chain, Datum, Hook, Rule, Set, Table, Value, ValueType, Verdict};

/// One netlink message carries at most this many set elements: 64 KiB is the longest attribute, and an element with
/// a verdict and a chain name of 250 bytes takes some 350.
pub(crate) const ELEMENTS_PER_MESSAGE: usize = 128;

/// One step from a table to the next. Pure data, so that order and minimality can be tested without a kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    AddSet(String, Set),
    AddChain(String, Option<Hook>),
    FlushChain(String),
    AddRule(String, Rule),
    AddElements(String, Set),
    DeleteElements(String, Set),
    DeleteChain(String),
    DeleteSet(String),
}

/// The changes from `old` to `new`, in units that must not be torn apart, in the order they must be made.
pub fn changes(old: &Table, new: &Table) -> Vec<Vec<Change>> {
    let mut units = Vec::new();
    add_sets(old, new, &mut units);
    add_chains(old, new, &mut units);
    units.extend(changed_contents(old, new));
    add_base_chains(old, new, &mut units);
    remove_unused(old, new, &mut units);
    units.retain(|unit| !unit.is_empty());
    units
}

/// New sets: declared and, when nothing in them leads to a chain, filled. Verdict maps are filled later, when the
/// chains are there. A set cannot change its types while rules use it, so what needs other types bears another name;
/// else the kernel refuses, and the caller swaps a whole table in.
fn add_sets(old: &Table, new: &Table, units: &mut Vec<Vec<Change>>) {
    for (name, set) in new.sets.iter().filter(|(name, set)| !same_kind(old, name, set)) {
        let mut unit = vec![Change::AddSet(name.to_string(), Set { elements: Default::default(), ..set.clone() })];
        if set.value != ValueType::Verdict {
            unit.extend(element_messages(name, set, set.elements.keys(), Change::AddElements));
        }
        units.push(unit);
    }
}

fn same_kind(old: &Table, name: &str, set: &Set) -> bool {
    old.sets.get(name).is_some_and(|o| o.key == set.key && o.value == set.value && o.learned == set.learned)
}

/// All new regular chains first, empty: a rule may lead to any of them. Then their rules.
fn add_chains(old: &Table, new: &Table, units: &mut Vec<Vec<Change>>) {
    let added = || new.chains.iter().filter(|(name, chain)| chain.hook.is_none() && !old.chains.contains_key(*name));
    units.extend(added().map(|(name, _)| vec![Change::AddChain(name.clone(), None)]));
    units.extend(added().map(|(name, chain)| rules(name, chain)));
}

/// Base chains come alive when all they lead to is there.
fn add_base_chains(old: &Table, new: &Table, units: &mut Vec<Vec<Change>>) {
    let mut unit = Vec::new();
    for (name, chain) in
        new.chains.iter().filter(|(name, chain)| chain.hook.is_some() && !old.chains.contains_key(*name))
    {
        unit.push(Change::AddChain(name.clone(), chain.hook));
        unit.extend(rules(name, chain));
    }
    units.push(unit);
}

fn rules(name: &str, chain: &Chain) -> Vec<Change> {
    chain.rules.iter().map(|rule| Change::AddRule(name.to_owned(), rule.clone())).collect()
}

/// Chains and sets that stay but say something else. What bears one name changes at once: a Service's chain draws a
/// number below the count of its map's elements.
fn changed_contents(old: &Table, new: &Table) -> Vec<Vec<Change>> {
    let mut units = Vec::new();
    let mut together: BTreeMap<&str, Vec<Change>> = Default::default();
    for (name, chain) in &new.chains {
        if old.chains.get(name).is_some_and(|before| before != chain) {
            let unit = together.entry(name).or_default();
            unit.push(Change::FlushChain(name.clone()));
            unit.extend(rules(name, chain));
        }
    }
    for (name, set) in &new.sets {
        let before = old.sets.get(name).filter(|_| same_kind(old, name, set));
        if before.is_none() && set.value != ValueType::Verdict {
            continue;
        }
        let changes = element_changes(name, before, set);
        if new.chains.contains_key(name) {
            together.entry(name).or_default().extend(changes.into_iter().flatten());
        } else {
            units.extend(changes);
        }
    }
    // Contents first: a shared map may come to lead to a chain changed here.
    together.into_values().chain(units).collect()
}

/// Elements that go or change their value are deleted before they are added; both in one unit.
fn element_changes(name: &str, before: Option<&Set>, after: &Set) -> Vec<Vec<Change>> {
    if after.learned.is_some() {
        return Vec::new();
    }
    let mut units = Vec::new();
    let empty = Set { elements: Default::default(), ..after.clone() };
    let before = before.unwrap_or(&empty);
    let stale: Vec<_> =
        before.elements.iter().filter(|(k, v)| after.elements.get(*k) != Some(*v)).map(|(k, _)| k).collect();
    let fresh: Vec<_> =
        after.elements.iter().filter(|(k, v)| before.elements.get(*k) != Some(*v)).map(|(k, _)| k).collect();
    // A key whose value changes must be deleted and added in one transaction; keys only added or removed need not.
    let (changed, added): (Vec<_>, Vec<_>) = fresh.into_iter().partition(|key| before.elements.contains_key(*key));
    let removed: Vec<_> = stale.into_iter().filter(|key| !after.elements.contains_key(*key)).collect();
    for keys in changed.chunks(ELEMENTS_PER_MESSAGE) {
        let mut unit = element_messages(name, before, keys.iter().copied(), Change::DeleteElements);
        unit.extend(element_messages(name, after, keys.iter().copied(), Change::AddElements));
        units.push(unit);
    }
    units.extend(element_messages(name, after, added.into_iter(), Change::AddElements).into_iter().map(|c| vec![c]));
    units.extend(
        element_messages(name, before, removed.into_iter(), Change::DeleteElements).into_iter().map(|c| vec![c]),
    );
    units
}

fn element_messages<'a>(
    name: &str,
    set: &Set,
    keys: impl Iterator<Item = &'a Vec<Datum>>,
    change: fn(String, Set) -> Change,
) -> Vec<Change> {
    let keys: Vec<_> = keys.collect();
    keys.chunks(ELEMENTS_PER_MESSAGE)
        .map(|keys| {
            let elements = keys.iter().map(|key| ((*key).clone(), set.elements[*key].clone())).collect();
            change(name.to_owned(), Set { elements, ..set.clone() })
        })
        .collect()
}

/// Chains are emptied before any is deleted, since one may lead to another.
fn remove_unused(old: &Table, new: &Table, units: &mut Vec<Vec<Change>>) {
    let gone = || old.chains.keys().filter(|name| !new.chains.contains_key(*name));
    units.extend(gone().map(|name| vec![Change::FlushChain(name.clone())]));
    units.extend(gone().map(|name| vec![Change::DeleteChain(name.clone())]));
    let gone = old.sets.keys().filter(|name| !new.sets.contains_key(*name));
    units.extend(gone.map(|name| vec![Change::DeleteSet(name.clone())]));
}

impl Change {
    /// A generous guess at the size on the wire; what it is compared with has room to spare.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Change::AddSet(name, _) => 160 + name.len(),
            Change::AddChain(name, _) | Change::FlushChain(name) => 120 + name.len(),
            Change::DeleteChain(name) | Change::DeleteSet(name) => 80 + name.len(),
            Change::AddRule(name, rule) => 80 + name.len() + rule.0.len() * 320,
            Change::AddElements(name, set) | Change::DeleteElements(name, set) => {
                80 + name.len() + set.elements.values().map(element_bytes).sum::<usize>()
            }
        }
    }
}

fn element_bytes(value: &Value) -> usize {
    match value {
        Value::Verdict(Verdict::Jump(chain) | Verdict::Goto(chain)) => 80 + chain.len(),
        _ => 72,
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::nft::{Field, FieldType, HookKind, HookPoint, Item};
    use expect_test::{Expect, expect};

    /// A table of one Service: a verdict map that leads to a chain, which draws from a map of the same name.
    fn table(backends: &[u8]) -> Table {
        let mut table = Table::default();
        let hook = Hook { kind: HookKind::Nat, at: HookPoint::Prerouting, priority: -100 };
        let vmap = Rule(vec![Item::Vmap(vec![Field::Daddr], "services".into())]);
        table.chain("prerouting", Some(hook), vec![vmap]);
        let mut services = Set::verdict_map(&[FieldType::Address]);
        if !backends.is_empty() {
            let mut map = Set::map(&[FieldType::Number], &[FieldType::Address, FieldType::Port]);
            for (number, last) in (0..).zip(backends) {
                let target = vec![Datum::Address(Ipv4Addr::new(10, 0, 0, *last)), Datum::Port(80)];
                map.elements.insert(vec![Datum::Number(number)], Value::Data(target));
            }
            let count = u32::try_from(backends.len()).unwrap();
            table.sets.insert("web".into(), map);
            table.chain("web", None, vec![Rule(vec![Item::DnatRandom { map: "web".into(), count }])]);
            let key = vec![Datum::Address(Ipv4Addr::new(10, 96, 0, 1))];
            services.elements.insert(key, Value::Verdict(Verdict::Goto("web".into())));
        }
        table.sets.insert("services".into(), services);
        table
    }

    fn check(old: &Table, new: &Table, expected: Expect) {
        let line = |change: &Change| {
            let elements = |set: &Set| set.elements.len();
            match change {
                Change::AddSet(name, _) => format!("add set {name}"),
                Change::AddChain(name, hook) => {
                    format!("add {}chain {name}", if hook.is_some() { "base " } else { "" })
                }
                Change::FlushChain(name) => format!("flush chain {name}"),
                Change::AddRule(name, rule) => format!("add rule {name}: {rule}"),
                Change::AddElements(name, set) => format!("add {} elements to {name}", elements(set)),
                Change::DeleteElements(name, set) => format!("delete {} elements of {name}", elements(set)),
                Change::DeleteChain(name) => format!("delete chain {name}"),
                Change::DeleteSet(name) => format!("delete set {name}"),
            }
        };
        let unit = |unit: &Vec<Change>| unit.iter().map(line).collect::<Vec<_>>().join("\n  with ");
        expected.assert_eq(&changes(old, new).iter().map(unit).collect::<Vec<_>>().join("\n"));
    }

    #[test]
    fn what_is_new_is_complete_before_packets_are_led_to_it() {
        check(
            &Table::default(),
            &table(&[1, 2]),
            expect![[r#"
            add set services
            add set web
              with add 2 elements to web
            add chain web
            add rule web: dnat to numgen random mod 2 map @web
            add 1 elements to services
            add base chain prerouting
              with add rule prerouting: ip daddr vmap @services"#]],
        );
    }

    #[test]
    fn a_chain_and_the_map_it_draws_from_change_together() {
        check(
            &table(&[1, 2, 3]),
            &table(&[1, 3]),
            expect![[r#"
            flush chain web
              with add rule web: dnat to numgen random mod 2 map @web
              with delete 1 elements of web
              with add 1 elements to web
              with delete 1 elements of web"#]],
        );
    }

    #[test]
    fn what_goes_is_removed_after_nothing_leads_to_it() {
        check(
            &table(&[1]),
            &table(&[]),
            expect![[r#"
            delete 1 elements of services
            flush chain web
            delete chain web
            delete set web"#]],
        );
    }

    #[test]
    fn nothing_changes_when_nothing_did() {
        check(&table(&[1]), &table(&[1]), expect![[""]]);
    }
}
