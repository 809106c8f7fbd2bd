/// Numbers of replicas that share partitions evenly.
public enum Divisors {
    /// All divisors of `n`, from 1 up; none when `n` is below 1. O(√n).
    public static func of(_ n: Int) -> [Int] {
        guard n > 0 else { return [] }
        var small: [Int] = [], large: [Int] = []
        var i = 1
        while i <= n / i {
            if n % i == 0 {
                small.append(i)
                if i != n / i { large.append(n / i) }
            }
            i += 1
        }
        return small + large.reversed()
    }

    /// The smallest divisor of `partitions` that takes `lag` at `threshold` each (`>=`); all partitions when none does. At a lag of 0 it is
    /// 1.
    public static func even(lag: Int, partitions: Int, threshold: Int) -> Int {
        of(partitions).first { OffsetArithmetic.product($0, threshold) >= lag } ?? max(partitions, 0)
    }
}
