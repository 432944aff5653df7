//! Random numbers that follow from a seed, so that every run gives the same figures.
//!
//! In: a seed. Out: numbers of some distributions.

/// A sequence of random numbers.
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        let mut chance = Self(seed.wrapping_mul(0xd134_2543_de82_ef95));
        chance.bits();
        chance
    }

    /// SplitMix64 (Steele et al. 2014).
    pub(crate) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Returns a number from 0 to 1, without 1.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        ((u128::from(self.bits()) * end as u128) >> 64) as usize
    }

    pub(crate) fn normal(&mut self) -> f64 {
        let (u, v) = (1.0 - self.unit(), self.unit());
        (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
    }

    pub(crate) fn exponential(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.unit()).ln()
    }

    pub(crate) fn poisson(&mut self, mean: f64) -> usize {
        if mean > 50.0 {
            return (mean + mean.sqrt() * self.normal()).round().max(0.0) as usize;
        }
        let (end, mut product, mut count) = ((-mean).exp(), self.unit(), 0);
        while product > end {
            product *= self.unit();
            count += 1;
        }
        count
    }

    /// Returns the demands of `count` clients by Zipf's law with exponent `s`, in random
    /// order; their mean is 1.
    pub(crate) fn zipf(&mut self, count: usize, s: f64) -> Vec<f64> {
        let mut all: Vec<f64> = (1..=count).map(|rank| (rank as f64).powf(-s)).collect();
        let mean = all.iter().sum::<f64>() / count as f64;
        all.iter_mut().for_each(|demand| *demand /= mean);
        for at in (1..count).rev() {
            all.swap(at, self.below(at + 1));
        }
        all
    }
}

/// A demand that changes at random: its logarithm is an Ornstein–Uhlenbeck process.
pub(crate) struct Wander {
    mean: f64,
    log: f64,
    sigma: f64,
}

impl Wander {
    pub(crate) fn new(mean: f64, sigma: f64, chance: &mut Chance) -> Self {
        Self { mean, log: sigma * chance.normal(), sigma }
    }

    /// Advances by `seconds`. Returns the demand. The time constant is five minutes.
    pub(crate) fn step(&mut self, seconds: f64, chance: &mut Chance) -> f64 {
        let keep = (-seconds / 300.0).exp();
        self.log = self.log * keep + self.sigma * (1.0 - keep * keep).sqrt() * chance.normal();
        // Corrects for the mean of a lognormal variable.
        self.mean * (self.log - self.sigma * self.sigma / 2.0).exp()
    }
}
