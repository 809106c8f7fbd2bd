import Balancing
import Basics
import HTTP
import Resilience
import StackModel
import Synchronization

/// One rate limit of a route: a token bucket for each key, shared by all loops.
///
/// Bounds: at most `keyLimit` keys are remembered. When they are reached, those whose bucket is full again are forgotten (which changes
/// nothing for them); if that frees none, new keys share one bucket, so that a flood of addresses cannot take the memory or go unlimited.
final class RateLimiter: Sendable {
    let spec: LimitSpec
    let bucket: TokenBucket
    /// Beginning of this limit's keys in Redis.
    let prefix: String
    private let stripes: [Stripe]

    static let keyLimit = 131_072
    private static let stripeCount = 16
    /// Least time between two sweeps: a tenth of a second, in nanoseconds.
    private static let sweepInterval: Int64 = 100_000_000

    private struct States {
        var all: [UInt64: Int64] = [:]
        /// No sweep happens before this time: a flood must not pay for a sweep with each of its keys.
        var sweptUntil: Int64 = .min
    }

    private final class Stripe: Sendable {
        let states = Mutex(States())
    }

    init(_ spec: LimitSpec, route: String) {
        self.spec = spec
        bucket = TokenBucket(rate: spec.perSecond, burst: spec.burst)
        prefix = SharedRateLimits.tag + "\(route):\(spec.text):\(RateLimiter.name(spec.key)):"
        stripes = (0..<RateLimiter.stripeCount).map { _ in Stripe() }
    }

    /// Names what a limit counts by, so that two limits of one rate that count by different things never share a key.
    private static func name(_ key: LimitSpec.Key) -> String {
        switch key {
        case .client: "client-ip"
        case .route: "route"
        case .header(let name): "header:\(name)"
        }
    }

    /// The key under which a request is counted.
    func key(_ table: HeadTable, client: IPAddress?) -> UInt64 {
        switch spec.key {
        case .route: return 0
        case .client: return client.map { ClientAddressKey.address(ipv6High: $0.high, low: $0.low) } ?? 1
        case .header(let name):
            let name = Array(name.utf8)
            // A request with several of them is refused (`RouteFilter.repeats`), and counts as one without any.
            guard let value = table.value(name), !value.isEmpty, table.count(name, where: { _ in true }).all == 1 else { return 2 }
            // Byte for byte: keys may differ in their case alone.
            return RecentRequests.key(value)
        }
    }

    /// Takes one request out of the bucket of `key`. `gateways`: the number of gateways that share the rate while each counts for itself.
    func take(_ key: UInt64, now: MonotonicTime, gateways: Int = 1) -> TokenBucket.Verdict {
        let bucket = share(gateways)
        return stripes[Int(key >> 60)].states.withLock { states in
            var key = key
            if states.all[key] == nil, states.all.count >= RateLimiter.keyLimit / RateLimiter.stripeCount {
                if now.nanoseconds >= states.sweptUntil {
                    states.all = states.all.filter { $0.value > now.nanoseconds }
                    states.sweptUntil = now.nanoseconds + RateLimiter.sweepInterval
                }
                if states.all.count >= RateLimiter.keyLimit / RateLimiter.stripeCount { key = .max }
            }
            var state = states.all[key] ?? 0
            let verdict = bucket.take(&state, now: now)
            states.all[key] = state
            return verdict
        }
    }

    /// Puts one request back into the bucket of `key`, because another limit refused the request. `gateways`: as `take` was told.
    func giveBack(_ key: UInt64, gateways: Int = 1) {
        let bucket = share(gateways)
        stripes[Int(key >> 60)].states.withLock { states in
            let key = states.all[key] == nil ? .max : key
            if let state = states.all[key] { states.all[key] = bucket.givenBack(state) }
        }
    }

    /// The bucket with this gateway's share of the rate.
    private func share(_ gateways: Int) -> TokenBucket {
        gateways > 1 ? TokenBucket(rate: spec.perSecond, burst: spec.burst, shares: gateways) : bucket
    }

    /// How long a request that was allowed out of the burst waits, so that it goes on at the steady rate.
    func delay(_ verdict: TokenBucket.Verdict) -> Duration {
        max(.zero, verdict.reset - .nanoseconds(Int64(clamped: min(1e9 / spec.perSecond, 3.6e12))))
    }

    var keys: Int { stripes.reduce(0) { $0 + $1.states.withLock { $0.all.count } } }
}
