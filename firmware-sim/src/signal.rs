//! What one sensor measures: a day's curve, noise, a slow drift, rare spikes, and runs of a stuck value.
//!
//! A signal is a function of (seed, device, step) and the event times of the steps. It is computed in integers
//! (millidegrees): sine functions of different machines differ in their last digit, and one seed must give the same
//! bytes everywhere.

use crate::dice::{Chance, Dice};

/// What a device measures at one step.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sample {
    /// Temperature in hundredths of a degree Celsius.
    pub temp_centi: i64,
    /// Relative humidity in tenths of a percent, 0 to 1000.
    pub hum_deci: i64,
}

/// One sensor.
#[derive(Clone, Debug)]
pub struct Signal {
    dice: Dice,
    /// The device's own mean, in millidegrees.
    base: i64,
    /// Half of the distance from the day's coldest to its warmest, in millidegrees.
    amplitude: i64,
    /// How far the sensor has drifted, in millidegrees, within ±[`DRIFT_MAX`].
    drift: i64,
    /// For this number of further steps it repeats `last`.
    stuck: u32,
    last: Sample,
}

/// Half a day in seconds: the curve's half-wave.
const HALF_DAY: i64 = 43_200;
const MICROS_PER_SECOND: i64 = 1_000_000;
/// The coldest hour is five in the morning, so the curve crosses its mean at eleven.
const MEAN_CROSSING: i64 = 11 * 3_600;
const DRIFT_MAX: i64 = 3_000;
const SPIKE: Chance = Chance::one_in(2_000);
const STUCK: Chance = Chance::one_in(5_000);
/// A stuck run's shortest length and what may be added to it, in steps.
const STUCK_STEPS: (u32, u32) = (20, 180);

impl Signal {
    /// The signal of a device; `dice` must be its own.
    pub fn new(mut dice: Dice) -> Self {
        let base = 15_000 + i64::from(dice.below(10_000));
        let amplitude = 2_000 + i64::from(dice.below(4_000));
        Self {
            dice,
            base,
            amplitude,
            drift: 0,
            stuck: 0,
            last: Sample::default(),
        }
    }

    /// The sample of the next step, at an event time in microseconds since the Unix epoch.
    pub fn step(&mut self, at_us: i64) -> Sample {
        // Every step draws the same number of times, stuck or not, so that one effect does not shift the others.
        let noise: i64 = (0..3).map(|_| self.dice.around_zero(40)).sum();
        let hum_noise = self.dice.around_zero(8);
        self.drift = (self.drift + self.dice.around_zero(3)).clamp(-DRIFT_MAX, DRIFT_MAX);
        let spike = self.dice.hits(SPIKE);
        let spike_height = 8_000 + i64::from(self.dice.below(12_000));
        let stuck = self.dice.hits(STUCK);
        let stuck_steps = STUCK_STEPS.0 + self.dice.below(STUCK_STEPS.1);
        if self.stuck > 0 {
            self.stuck -= 1;
            return self.last;
        }
        if stuck {
            self.stuck = stuck_steps;
        }
        let calm = self.base + self.amplitude * day_curve(at_us) / 1_000 + self.drift;
        let spike = if spike { spike_height } else { 0 };
        let hum_deci = 550 - (calm - 20_000) / 60 + hum_noise;
        self.last = Sample {
            temp_centi: (calm + noise + spike) / 10,
            hum_deci: hum_deci.clamp(0, 1_000),
        };
        self.last
    }
}

/// A sine over the day in thousandths, by Bhaskara's approximation (within 0.2 %).
fn day_curve(at_us: i64) -> i64 {
    let second = (at_us.div_euclid(MICROS_PER_SECOND) - MEAN_CROSSING).rem_euclid(2 * HALF_DAY);
    let (sign, within) = if second < HALF_DAY {
        (1, second)
    } else {
        (-1, second - HALF_DAY)
    };
    let product = within * (HALF_DAY - within);
    sign * 16_000 * product / (5 * HALF_DAY * HALF_DAY - 4 * product)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(seed: u64, steps: i64, step_us: i64) -> Vec<Sample> {
        let mut signal = Signal::new(Dice::new(seed, 0));
        (0..steps).map(|step| signal.step(step * step_us)).collect()
    }

    #[test]
    fn the_day_has_its_shape() {
        let hour = |hour: i64| day_curve(hour * 3_600 * MICROS_PER_SECOND);
        assert_eq!((hour(11), hour(17), hour(23), hour(5)), (0, 1_000, 0, -1_000));
        assert_eq!(hour(14), 705); // 1000·sin 45° = 707; the approximation gives 705.88
        assert_eq!(hour(17 - 48), 1_000);
    }

    #[test]
    fn one_seed_one_signal() {
        assert_eq!(samples(1, 500, 1_000_000), samples(1, 500, 1_000_000));
        assert_ne!(samples(1, 500, 1_000_000), samples(2, 500, 1_000_000));
    }

    #[test]
    fn spikes_and_stuck_runs_happen_and_pass() {
        let samples = samples(3, 50_000, 1_000_000);
        let is_spike = |pair: &[Sample]| pair[1].temp_centi - pair[0].temp_centi > 700;
        let spikes = samples.windows(2).filter(|pair| is_spike(pair)).count();
        assert!((10..60).contains(&spikes), "{spikes}");
        let stuck = samples
            .windows(20)
            .filter(|run| run.iter().all(|sample| *sample == run[0]))
            .count();
        assert!((100..5_000).contains(&stuck), "{stuck}");
        assert!(
            samples
                .iter()
                .all(|sample| (0..=1_000).contains(&sample.hum_deci))
        );
        assert!(
            samples
                .iter()
                .all(|sample| (0..6_000).contains(&sample.temp_centi))
        );
    }
}
