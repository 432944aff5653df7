//! Tests the zones of services, which settings and the demand of clients change.

use super::*;
use crate::facts::demand::Demand;
use crate::settings::Document;

fn settle(world: &mut World, document: &str) {
    let document = Document::parse(document).unwrap();
    let settings = world.catalog.settings().with(None, Some(Arc::new(document)));
    world.say(Input::Settings(Arc::new(settings)));
}

fn demand(calls: u64) -> Arc<Demand> {
    Arc::new(Demand { zones: [("a".into(), calls)].into(), unknown: 0 })
}

#[test]
fn zones_follow_settings_and_demand() {
    let mut world = World::new();
    world.say(reset(vec![entry("near", "10.0.0.1:80"), entry("far", "10.0.0.2:80")]));
    let near = world.catalog.subscribe(&target("near")).unwrap();
    let far = world.catalog.subscribe(&target("far")).unwrap();
    let service = |of: &Subscription| match of.known() {
        Known::Present(service) => service,
        other => panic!("{other:?}"),
    };
    let say_demand = |world: &mut World, name: &str, calls| {
        world.say(Input::Demand(ServiceName::new(name).unwrap(), demand(calls)));
    };
    // Without zones, demand is ignored.
    let first = [near.version(), far.version()];
    say_demand(&mut world, "near", 1);
    say_demand(&mut world, "nobody", 1);
    assert_eq!([near.version(), far.version()], first);

    let on = "[service.near]\nzones.mode = 'prefer'\n";
    settle(&mut world, on);
    let zones = service(&near).facts.zones.clone().unwrap();
    assert!(zones.table.is_empty() && *zones.demand == Demand::default());
    assert_eq!([near.version(), far.version()], [first[0] + 1, first[1]]);
    say_demand(&mut world, "near", 5);
    assert_eq!(service(&near).facts.zones.as_ref().unwrap().demand, demand(5));
    assert_eq!(near.version(), first[0] + 2);
    say_demand(&mut world, "near", 5);
    assert_eq!(near.version(), first[0] + 2, "equal demand changes nothing");

    // Each other change keeps the demand.
    settle(&mut world, &format!("{on}[zones]\n'10.0.0.0/8' = 'a'\n"));
    let moved = service(&near).facts.zones.clone().unwrap();
    assert_eq!((moved.table.networks().count(), &moved.demand), (1, &demand(5)));
    assert_eq!([near.version(), far.version()], [first[0] + 3, first[1]]);
    world.say(put(entry("near", "10.0.0.3:80")));
    assert_eq!(service(&near).endpoints.len(), 2);
    assert_eq!(service(&near).facts.zones.as_ref(), Some(&moved));
    settle(&mut world, "[zones]\n'10.0.0.0/8' = 'a'\n");
    assert_eq!(service(&near).facts.zones, None);
    assert_eq!(far.version(), first[1], "a service without zones is left alone");
}
