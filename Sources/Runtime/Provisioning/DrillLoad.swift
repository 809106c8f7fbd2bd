import Basics
import EventLoops
import Redis
import Sharding

/// A steady stream of writes over all slots, and the books of what was acknowledged: each write is a key of its own, so that what is
/// missing afterwards is seen. On its loop.
final class DrillLoad {
    /// Writes without an answer, at most: a client that waits for a master holds back what it would send.
    private static let inFlightLimit = 9_000
    private static let tick = Duration.milliseconds(5)

    private let client: RedisClient
    private let loop: EventLoop
    let prefix: String
    private let lost: SlotSet
    private let replicas: Int
    private let rate: Int
    private var timer: LoopTimer?
    private var began: MonotonicTime
    /// Numbers below it may have been sent.
    private(set) var sent = 0
    private var answered = 0
    private var isStopped = false
    /// Numbers of the writes that were acknowledged.
    private(set) var acknowledged: [Int] = []
    private(set) var acknowledgedInLost = 0
    /// When the writes that were acknowledged in the lost slots were sent and answered, from the last second before `mark` on.
    private var last: MonotonicTime?
    private var mark: MonotonicTime?
    private var afterMark: (sent: MonotonicTime, answered: MonotonicTime)?
    private(set) var failuresInLost = 0
    private(set) var failuresElsewhere = 0
    private(set) var firstFailureElsewhere = ""

    /// `lost`: the slots of the master that is to go.
    init(client: RedisClient, prefix: String, lost: SlotSet, confirmedBy replicas: Int, rate: Int) {
        self.client = client
        loop = client.loop
        self.prefix = prefix
        self.lost = lost
        self.replicas = replicas
        self.rate = rate
        began = .now
    }

    func key(_ number: Int) -> String { prefix + String(number) }

    func start() {
        began = .now
        timer = LoopTimer(loop: loop) { [unowned self] in send() }
        timer?.schedule(after: DrillLoad.tick)
    }

    private func send() {
        if isStopped { return }
        let due = Int((MonotonicTime.now - began).nanoseconds) * rate / 1_000_000_000
        while sent < due {
            // What could not be sent in time is left out, not sent in a burst later.
            if sent - answered >= DrillLoad.inFlightLimit {
                sent = due
                answered = max(answered, sent - DrillLoad.inFlightLimit)
                break
            }
            send(sent)
            sent += 1
        }
        timer?.schedule(after: DrillLoad.tick)
    }

    private func send(_ number: Int) {
        let key = key(number), isLost = lost.contains(HashSlot.of(key)), start = MonotonicTime.now
        // The same key and value twice are the same: it may be repeated.
        let command = RedisCommand("SET", key, String(number), "EX", "3600").repeatable().confirmed(by: replicas)
        client.submit(command) { [self] result in
            answered += 1
            switch result {
            case .success:
                acknowledged.append(number)
                if isLost { acknowledgedLost(start) }
            case .failure(let error):
                if isLost {
                    failuresInLost += 1
                } else {
                    failuresElsewhere += 1
                    if firstFailureElsewhere.isEmpty { firstFailureElsewhere = "\(error)" }
                }
            }
        }
    }

    private func acknowledgedLost(_ start: MonotonicTime) {
        acknowledgedInLost += 1
        let now = MonotonicTime.now
        if let mark {
            if start >= mark, afterMark == nil { afterMark = (start, now) }
        } else {
            last = now
        }
    }

    /// From now on, the first write that is sent and acknowledged in the lost slots counts as the first after the fault.
    func setMark() {
        mark = .now
        afterMark = nil
    }

    var lastBeforeMark: MonotonicTime? { last }
    var firstAfterMark: MonotonicTime? { afterMark?.answered }

    /// Sends no more; what is under way is answered within the client's patience.
    func stop() { isStopped = true }
    var isQuiet: Bool { isStopped && answered >= sent }
}
