import Autoscaling
import Basics

/// Where the autoscalers' long memory lies: what each service needed at each time of the day and the week. A file that cannot be read is
/// begun anew; that one cannot be written is told, and costs what was learned since.
struct ScalingStore {
    let folder: String

    private func file(_ service: String) -> String { "\(folder)/\(service).demand" }

    func history(of service: String) -> DemandHistory { Files.text(file(service)).flatMap(DemandHistory.init(text:)) ?? DemandHistory() }

    func keep(_ history: DemandHistory, of service: String) throws(SystemError) {
        guard history != DemandHistory() else { return }
        try Files.makeInnerFolder(folder)
        try Files.replace(file(service), with: Array(history.text.utf8))
    }
}
