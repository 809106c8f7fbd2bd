import Autoscaling
import Basics

/// Where the autoscalers' long memory lies: what each service needed at each time of the day and the week. A file that cannot be read is
/// begun anew, one that cannot be written costs what was learned since.
final class ScalingStore {
    private let folder: String
    private var nextKeeping: MonotonicTime?
    /// Between two writings; as long as a slot of the history.
    private static let interval = Duration.seconds(60 * Int64(DemandHistory.slot))

    init(folder: String) { self.folder = folder }

    private func file(_ service: String) -> String { "\(folder)/\(service).demand" }

    func history(of service: String) -> DemandHistory { Files.text(file(service)).flatMap(DemandHistory.init(text:)) ?? DemandHistory() }

    func keep(_ history: DemandHistory, of service: String) {
        guard history != DemandHistory() else { return }
        try? Files.makeFolder(folder, mode: 0o700)
        try? Files.replace(file(service), with: Array(history.text.utf8))
    }

    func keepNowAndThen(_ histories: [String: DemandHistory], _ now: MonotonicTime) {
        guard let due = nextKeeping else {
            nextKeeping = now + ScalingStore.interval
            return
        }
        guard now >= due else { return }
        nextKeeping = now + ScalingStore.interval
        for (service, history) in histories { keep(history, of: service) }
    }
}
