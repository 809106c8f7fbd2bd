import Basics
import EventLoops
import Observability
import Redis
import Resilience

/// One loop's part of the rate limits that all gateways count together in Redis. Questions that come in one turn of the loop, or while a
/// call is under way, go to Redis together in one script call.
///
/// While Redis does not answer, each gateway counts for itself with its share of the rate: the rate divided by the number of gateways that
/// Redis last reported. A question waits for Redis for at most `patience`; a request is never held longer.
final class SharedRateLimits {
    private struct Question {
        let limiter: RateLimiter
        let key: UInt64
        let answer: (TokenBucket.Verdict) -> Void
    }

    private let loop: EventLoop
    private let redis: RedisClient
    private let journal: Journal
    private let me: String
    private var waiting: [Question] = []
    private var isAsking = false
    private var isQueued = false
    private var isAway = false
    private var triedAt = MonotonicTime(nanoseconds: 0)
    /// Number of gateways that count together, this one included.
    private(set) var gateways = 1
    private let calls: Counter
    private let local: Counter

    static let patience = Duration.milliseconds(100)
    /// After a failure, Redis is asked again at most this often.
    private static let retryAfter = Duration.seconds(1)
    /// Most keys in one call: a call of this size takes Redis about a millisecond.
    private static let batchLimit = 256
    /// Beginning of every key: one hash tag, so that the keys of a call lie together in a cluster.
    static let tag = "{muster:limit}:"
    /// Most gateways that can count together: a reply that names more is not believed.
    private static let gatewayLimit = 1_000_000
    /// Most questions that wait for Redis; further ones are counted here: a store that answers too slowly for them is as good as away.
    private static let waitingLimit = 4096

    /// `redis` must have `patience` as its command time.
    init(redis: RedisClient, name: String, journal: Journal, metrics: MetricsRegistry) {
        loop = redis.loop
        self.redis = redis
        self.journal = journal
        me = name
        calls = metrics.counter("gateway_limit_calls_total", "Calls to the store of shared limits.")
        local = metrics.counter(
            "gateway_limit_local_total", "Requests of shared limits that were counted here because the store did not answer.")
    }

    static func options() -> RedisClient.Options {
        var options = RedisClient.Options()
        options.maxConnections = 1
        options.commandTime = patience
        // Requests wait for a connection that is being made, too.
        options.connectTime = patience
        options.patience = patience
        options.name = "muster-gateway-limits"
        return options
    }

    func take(_ limiter: RateLimiter, _ key: UInt64, _ answer: @escaping (TokenBucket.Verdict) -> Void) {
        if isAway, loop.now - triedAt < SharedRateLimits.retryAfter {
            return countHere(Question(limiter: limiter, key: key, answer: answer))
        }
        if waiting.count >= SharedRateLimits.waitingLimit { return countHere(Question(limiter: limiter, key: key, answer: answer)) }
        waiting.append(Question(limiter: limiter, key: key, answer: answer))
        guard !isAsking, !isQueued else { return }
        isQueued = true
        let bound = LoopBound(self, on: loop)
        loop.execute {
            bound.value.isQueued = false
            bound.value.ask()
        }
    }

    private func countHere(_ question: Question) {
        local.add()
        question.answer(question.limiter.take(question.key, now: loop.now, gateways: gateways))
    }

    private func ask() {
        guard !waiting.isEmpty, !isAsking else { return }
        isAsking = true
        triedAt = loop.now
        let count = min(waiting.count, SharedRateLimits.batchLimit)
        let batch = Array(waiting[..<count])
        waiting.removeFirst(count)
        var call = SharedRateLimits.script.call(
            keys: [SharedRateLimits.tag + "gateways"] + batch.map { $0.limiter.prefix + String($0.key, radix: 16) })
        call.add(me)
        for question in batch {
            call.add(question.limiter.bucket.intervalMicroseconds)
            call.add(question.limiter.bucket.intervalMicroseconds * (question.limiter.spec.burst + 1))
        }
        calls.add()
        let redis = redis, sent = call
        let bound = LoopBound((self, batch), on: loop)
        // Ends with the answer, or after `patience`.
        Task(executorPreference: loop) {
            let result = await redis.run(SharedRateLimits.script, [sent])
            bound.value.0.answered(bound.value.1, result.first)
        }
    }

    private func answered(_ batch: [Question], _ result: Result<RESPValue, RedisError>?) {
        isAsking = false
        if case .success(let value)? = result, let (count, verdicts) = read(value, batch) {
            gateways = count
            tell(away: false, "")
            for (question, verdict) in zip(batch, verdicts) { question.answer(verdict) }
        } else {
            if case .failure(let error)? = result { tell(away: true, "\(error)") } else { tell(away: true, "an answer of another form") }
            for question in batch + waiting { countHere(question) }
            waiting = []
        }
        ask()
    }

    /// Reads the script's reply: how many gateways count, and a verdict for each question; nil when the script cannot have said this. The
    /// numbers come from another process, so each is checked before anything is computed from it.
    private func read(_ value: RESPValue, _ batch: [Question]) -> (gateways: Int, verdicts: [TokenBucket.Verdict])? {
        guard let values = value.array, values.count == 2 * batch.count + 1 else { return nil }
        let numbers = values.compactMap(\.int)
        guard numbers.count == values.count, (1...SharedRateLimits.gatewayLimit).contains(numbers[0]) else { return nil }
        var verdicts: [TokenBucket.Verdict] = []
        for (i, question) in batch.enumerated() {
            guard let verdict = verdict(question, allowed: numbers[2 * i + 1], debt: numbers[2 * i + 2]) else { return nil }
            verdicts.append(verdict)
        }
        return (numbers[0], verdicts)
    }

    private func verdict(_ question: Question, allowed: Int, debt: Int) -> TokenBucket.Verdict? {
        let interval = question.limiter.bucket.intervalMicroseconds, span = interval * (question.limiter.spec.burst + 1)
        guard allowed == 0 || allowed == 1, debt >= 0, debt <= span else { return nil }
        return TokenBucket.Verdict(
            allowed: allowed == 1, remaining: (span - debt) / interval, wait: .microseconds(max(0, debt + interval - span)),
            reset: .microseconds(debt))
    }

    private func tell(away: Bool, _ detail: String) {
        guard away != isAway else { return }
        isAway = away
        journal.append(
            DecisionRecord(
                .limit, subject: "limit-store", inputs: [.init("gateways", gateways), .init("error", detail)], raw: "count in Redis",
                outcome: away ? "count here" : "count in Redis",
                sentence: away
                    ? "The store of shared limits does not answer (\(detail)): this gateway counts for itself, with 1/\(gateways) of each "
                        + "rate."
                    : "The store of shared limits answers again: the gateways count together.",
                flip: away
                    ? "an answer of the store within \(SharedRateLimits.patience.brief)"
                    : "no answer of the store within \(SharedRateLimits.patience.brief)"))
    }

    /// The generic cell rate algorithm on Redis' own clock, for many keys at once. The script also counts the gateways: one that has not
    /// asked for fifteen seconds is gone.
    static let script = RedisScript(
        """
        local t = redis.call('TIME')
        local now = t[1] * 1000000 + t[2]
        redis.call('ZADD', KEYS[1], t[1], ARGV[1])
        redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', t[1] - 15)
        redis.call('EXPIRE', KEYS[1], 60)
        local out = {redis.call('ZCARD', KEYS[1])}
        for i = 1, #KEYS - 1 do
          local interval, span = tonumber(ARGV[2 * i]), tonumber(ARGV[2 * i + 1])
          local debt = (tonumber(redis.call('GET', KEYS[i + 1])) or 0) - now
          if debt < 0 then debt = 0 elseif debt > span then debt = span end
          local allowed = 0
          if debt + interval <= span then
            allowed = 1
            debt = debt + interval
            redis.call('SET', KEYS[i + 1], string.format('%.0f', now + debt), 'PX', math.ceil(debt / 1000) + 1000)
          end
          out[2 * i] = allowed
          out[2 * i + 1] = math.floor(debt)
        end
        return out
        """)
}
