import Basics

/// What `$NAME` means in a stack file: the environment, and after it the file `.env` beside the stack file. That file is read when the
/// first name is asked for that the environment does not have, so a `.env` of another program disturbs nobody who does not use it.
final class StackVariables {
    /// What was wrong with dotenv files, each with its place.
    private(set) var problems: [Problem] = []
    /// The folder of the stack file, to which paths in it are relative.
    let folder: String
    let files: StackFiles
    private let environment: (String) -> String?
    private var dotenv: [String: String]?
    private var read: [String: [Dotenv.Entry]] = [:]

    init(path: String, files: StackFiles, environment: @escaping (String) -> String?) {
        folder = Files.folder(of: path)
        self.files = files
        self.environment = environment
    }

    /// Where a path of the stack file leads.
    func place(_ path: String) -> String { path.hasPrefix("/") ? path : folder == "." ? path : "\(folder)/\(path)" }

    func value(_ name: String) -> String? { environment(name) ?? fromDotenv(name) }

    private func fromDotenv(_ name: String) -> String? {
        if dotenv == nil {
            // While it is read, its own names are looked up in the environment only.
            dotenv = [:]
            let path = place(".env")
            switch files.read(path, Dotenv.sizeLimit) {
            case .absent: break
            case .unreadable(let reason): problems.append(Problem(file: path, line: 0, column: 0, message: reason))
            case .bytes(let bytes):
                let found = Dotenv(bytes, file: path, lookUp: environment)
                problems += found.problems
                for entry in found.entries { dotenv![entry.name] = entry.value }
            }
        }
        return dotenv?[name]
    }

    /// The lines of an `env-file`; throws why it cannot be read. What is wrong within it goes to `problems`, once.
    func entries(of path: String) throws(Interpolation.Failure) -> [Dotenv.Entry] {
        let place = place(path)
        if let known = read[place] { return known }
        switch files.read(place, Dotenv.sizeLimit) {
        case .absent: throw Interpolation.Failure(reason: "there is no file '\(place)'")
        case .unreadable(let reason): throw Interpolation.Failure(reason: reason)
        case .bytes(let bytes):
            let found = Dotenv(bytes, file: place) { [unowned self] in value($0) }
            problems += found.problems
            read[place] = found.entries
            return found.entries
        }
    }

    func report(_ file: String, _ line: Int, _ column: Int, _ message: String) {
        problems.append(Problem(file: file, line: line, column: column, message: message))
    }
}
