import Autoscaling
import Basics

/// Where the autoscalers' long memory lies: what each service needed at each time of the day and the week. That a file cannot be read or
/// written is told; see `LearnedFile`.
struct ScalingStore {
    let folder: String

    func file(_ service: String) -> LearnedFile { LearnedFile(path: "\(folder)/\(service).demand") }

    func keep(_ history: DemandHistory, of service: String) throws(SystemError) {
        guard history != DemandHistory() else { return }
        try file(service).write(Array(history.text.utf8))
    }
}
