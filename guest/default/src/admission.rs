//! The default rules of waiting rooms, pure.
//!
//! | setting | default | meaning |
//! |---|---|---|
//! | `opens-at-ms` | 0 | Unix milliseconds before which nobody is let in; 0: open |
//! | `closes-at-ms` | 0 | Unix milliseconds from which nobody is placed any more; 0: never |
//! | `draw` | true | whoever arrives before `opens-at-ms` is placed by lot; false: in the order of arrival |
//! | `admit-per-second` | 0 | let in so many in a second; 0: as many as there is space |
//! | `active-ttl-ms` | 300000 | length of a stay; 1 or more |
//! | `tick-ms` | 250 | time between two plans while somebody waits; 1 or more |

use weir_policy_vectors::{AdmissionPlan, Placement, Room};

/// Lane of those who are placed by lot. Lanes below are free for whoever goes before them.
pub const LANE_DRAW: u8 = 64;
/// Lane of those who are placed in the order of arrival.
pub const LANE_LINE: u8 = 128;

/// What an operator may set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    opens_at_ms: u64,
    closes_at_ms: u64,
    draw: bool,
    admit_per_second: u32,
    active_ttl_ms: u32,
    tick_ms: u32,
}

impl Settings {
    /// Reads the settings through `get`; `unusable` is told the name and value of each that is ignored.
    pub fn read(get: impl Fn(&str) -> Option<String>, mut unusable: impl FnMut(&str, &str)) -> Self {
        let mut number = |key: &str, least: u64, most: u64| {
            let text = get(key)?;
            let usable = text.trim().parse().ok().filter(|value| (least..=most).contains(value));
            if usable.is_none() {
                unusable(key, &text);
            }
            usable
        };
        let (most, least_time) = (u64::from(u32::MAX), 1);
        let mut small = |key: &str, least: u64, default: u32| {
            number(key, least, most).and_then(|value| u32::try_from(value).ok()).unwrap_or(default)
        };
        let admit_per_second = small("admit-per-second", 0, 0);
        let active_ttl_ms = small("active-ttl-ms", least_time, 300_000);
        let tick_ms = small("tick-ms", least_time, 250);
        Self {
            opens_at_ms: number("opens-at-ms", 0, u64::MAX).unwrap_or(0),
            closes_at_ms: number("closes-at-ms", 0, u64::MAX).unwrap_or(0),
            draw: get("draw").is_none_or(|text| text.trim() != "false"),
            admit_per_second,
            active_ttl_ms,
            tick_ms,
        }
    }
}

/// Where whoever arrives now is placed.
pub fn place(settings: &Settings, now_ms: u64) -> Placement {
    if settings.closes_at_ms != 0 && now_ms >= settings.closes_at_ms {
        return Placement::Refuse;
    }
    if now_ms < settings.opens_at_ms {
        // Whoever comes before it opens is in the same lane, by lot or not, and before those who come later.
        return if settings.draw { Placement::Draw(LANE_DRAW) } else { Placement::Line(LANE_DRAW) };
    }
    Placement::Line(LANE_LINE)
}

/// How many are let in now.
pub fn plan(settings: &Settings, now_ms: u64, room: Room) -> AdmissionPlan {
    let Settings { opens_at_ms, admit_per_second, active_ttl_ms, tick_ms, .. } = *settings;
    let plan = |admit: u64, next_tick_ms: u32| AdmissionPlan {
        admit: u32::try_from(admit).unwrap_or(u32::MAX),
        active_ttl_ms,
        next_tick_ms,
    };
    if now_ms < opens_at_ms {
        let until_ms = u32::try_from(opens_at_ms - now_ms).unwrap_or(u32::MAX);
        return plan(0, until_ms.clamp(1, 1_000));
    }
    let space = room.capacity.saturating_sub(room.active).min(room.waiting);
    if admit_per_second == 0 {
        return plan(space, tick_ms);
    }
    // Whole people by the clock: nobody is lost between two ticks, and a pause is not made up for.
    let by_then = |ms: u64| (u128::from(ms) * u128::from(admit_per_second) / 1_000) as u64;
    let due = by_then(now_ms) - by_then(now_ms.saturating_sub(room.since_ms.min(10_000)));
    plan(space.min(due), tick_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> Settings {
        let get = |key: &str| pairs.iter().find(|(name, _)| *name == key).map(|(_, value)| (*value).to_owned());
        Settings::read(get, |key, value| panic!("{key} = {value}"))
    }

    #[test]
    fn before_it_opens_all_are_drawn_and_nobody_is_let_in() {
        let settings = settings(&[("opens-at-ms", "10000"), ("closes-at-ms", "20000")]);
        let room = Room { waiting: 9, active: 0, capacity: 5, since_ms: 100, ..Room::default() };
        assert_eq!(place(&settings, 9_999), Placement::Draw(LANE_DRAW));
        assert_eq!(plan(&settings, 9_900, room), AdmissionPlan { admit: 0, active_ttl_ms: 300_000, next_tick_ms: 100 });
        assert_eq!(place(&settings, 10_000), Placement::Line(LANE_LINE));
        assert_eq!(plan(&settings, 10_000, room).admit, 5);
        assert_eq!(place(&settings, 20_000), Placement::Refuse);
    }

    #[test]
    fn no_more_than_there_is_space_and_no_faster_than_the_rate() {
        let room = |active| Room { waiting: 100, active, capacity: 50, since_ms: 250, ..Room::default() };
        let all = settings(&[]);
        assert_eq!(plan(&all, 0, room(20)).admit, 30);
        assert_eq!(plan(&all, 0, room(60)).admit, 0);
        let slow = settings(&[("admit-per-second", "3")]);
        let admitted: u32 = (1..=40).map(|tick| plan(&slow, tick * 250, room(0)).admit).sum();
        assert_eq!(admitted, 30, "ten seconds of three");
    }

    #[test]
    fn what_is_no_number_is_said() {
        let mut unusable = Vec::new();
        let get = |key: &str| (key == "tick-ms").then(|| "0".to_owned());
        let read = Settings::read(get, |key, value| unusable.push(format!("{key}={value}")));
        assert_eq!((read.tick_ms, unusable), (250, vec!["tick-ms=0".to_owned()]));
    }
}
