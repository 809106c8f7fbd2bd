import Basics
import CLinux
import Glibc

/// The small process that starts a stack's supervisor and starts it again when it has crashed, so that replicas are not left without one.
///
/// It holds no socket and no file, reads nothing from outside, and does nothing but wait; signals go on to the supervisor. What a killed
/// supervisor has left is ended by the next one, before it starts anything. See decision 25.
public struct Watcher {
    /// Lives shorter than this, in a row, are a crash loop.
    static let settled = Duration.seconds(60)
    static let loopsAt = 5
    static let firstWait = Duration.milliseconds(200)
    /// The longest pause between two tries to start a supervisor that this machine lacks something for.
    static let longestWait = Duration.seconds(10)

    static let watcherVariable = "MUSTER_WATCHER"
    static let folderVariable = "MUSTER_SUPERVISES"
    static let crashVariable = "MUSTER_RESTARTED_AFTER"
    private static let signals: [Int32] = [SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGUSR1, SIGCHLD]

    private let folder: StackFolder
    private let arguments: [String]
    private let isForeground: Bool
    private let tell: (String) -> Void
    private var isStopping = false
    private var crashes = 0
    /// Children that were here before the supervisor: whoever started this program with `exec` had them.
    private var strangers: [Int32: UInt64] = [:]

    /// `arguments` start this program as the supervisor of `folder`.
    public init(folder: StackFolder, arguments: [String], isForeground: Bool, tell: @escaping (String) -> Void) {
        self.folder = folder
        self.arguments = arguments
        self.isForeground = isForeground
        self.tell = tell
    }

    /// Takes the calling thread, which must be the process's only one, until the supervisor has ended for good. Returns its exit status.
    public mutating func run() throws -> Int32 {
        guard muster_block_signals(Watcher.signals, Int32(Watcher.signals.count)) == 0 else { throw SystemError("pthread_sigmask") }
        try takeLock()
        strangers = try Orphans.identified()
        // What a crashed supervisor leaves comes here, and can be found when all is over.
        guard muster_become_subreaper() == 0 else { throw SystemError("prctl") }
        var crash: String?
        while true {
            var started = MonotonicTime.now
            // nil: it could not be started.
            var code: Int32?, how: String
            do {
                if let pid = try startPatiently(after: crash) {
                    started = .now
                    let ended = try watch(pid)
                    code = ended
                    how = "\(ending(ended)) after \((MonotonicTime.now - started).brief)"
                } else {
                    isStopping = true
                    how = crash ?? ""
                }
            } catch {
                if crash == nil { throw error }
                how = "it could not be started: \(error)"
            }
            if code == nil, isStopping { return try giveUp("the supervisor had ended (\(how)) when it was told to stop") }
            if let code, code >= 0, crash == nil || code == 0 || isStopping {
                _ = Orphans.endAll(sparing: strangers)
                return code
            }
            let endedItself = code.map { $0 >= 0 } ?? false
            // Somebody else has started the stack meanwhile: it is looked after. Where that cannot be seen, the next start tells why.
            if endedItself, (try? folder.standing()) == .running { return 0 }
            if isStopping { return try giveUp("the supervisor ended (\(how)) before it had stopped everything") }
            // One that ended by itself after a crash did not get the stack to run, however long it tried.
            let hasSettled = code != nil && !endedItself && MonotonicTime.now - started >= Watcher.settled
            crashes = hasSettled ? 1 : crashes + 1
            guard crashes < Watcher.loopsAt else {
                return try giveUp("the supervisor ended \(crashes) times in a row without having settled, lastly so: \(how)")
            }
            let wait = Duration.nanoseconds(Watcher.firstWait.nanoseconds << Int64(crashes - 1))
            tell("the supervisor ended: \(how). It is started again in \(wait.brief), and ends first what it had started")
            if pause(wait) { return try giveUp("the supervisor had ended (\(how)) when it was told to stop") }
            crash = how
        }
    }

    /// In a supervisor that is started again: the path of the folder whose stack it is to run.
    public static var supervised: String? { environmentValue(folderVariable) }

    /// In a supervisor that is started again: the stack file that its folder names, which lies beside `first`, the one of the first start. The
    /// stack may have been changed to what another file says. Throws when the folder cannot be read.
    public static func currentFile(after first: String?) throws(SystemError) -> String? {
        guard let first, let folder = supervised, let owner = try Files.firstLine(folder + "/file"), !owner.isEmpty,
            owner != Files.name(of: Files.absolute(first))
        else { return first }
        return Files.folder(of: Files.absolute(first)) + "/" + owner
    }

    /// In the supervisor, when it was told to stop: its watcher must not start it again, also when it crashes before it has stopped.
    static func hearsOfStop() {
        guard let watcher = environmentValue(watcherVariable).flatMap({ Int32($0) }), watcher > 1, getppid() == watcher else { return }
        kill(watcher, SIGUSR1)
    }

    /// A watcher before this one may still be ending.
    private func takeLock() throws {
        let deadline = MonotonicTime.now + .seconds(1)
        while try !folder.becomeWatcher() {
            if MonotonicTime.now > deadline {
                throw Supervisor.Failure("the stack runs already, or is being started", isRunningAlready: true)
            }
            usleep(20_000)
        }
    }

    /// Starts the supervisor. After a crash replicas run on meanwhile: where only this machine lacks what a start takes (processes, memory,
    /// descriptors), that counts as no crash, and it is tried again for as long as that lasts. nil: it was told to stop meanwhile.
    private func startPatiently(after crash: String?) throws -> Int32? {
        var wait = Watcher.firstWait, told = ""
        while true {
            do { return try start(after: crash) } catch let error as SystemError where crash != nil && error.isWantAtStart {
                let line =
                    "the supervisor cannot be started (\(error)): what runs of the stack runs on, and it is tried again in \(wait.brief)"
                if line != told { tell(line) }
                told = line
                if pause(wait) { return nil }
                // What has ended meanwhile counts as a process until it is looked at.
                var code: Int32 = 0
                while muster_reap_any(&code) != 0 {}
                wait = min(wait * 2, Watcher.longestWait)
            }
        }
    }

    private func start(after crash: String?) throws -> Int32 {
        var environment = Environment.inherited
        environment[Watcher.watcherVariable] = String(getpid())
        environment[Watcher.folderVariable] = folder.path
        environment[Watcher.crashVariable] = crash
        // Swift's own report of a crash holds the dying process for seconds, with its lock and its ports, while nobody serves; and a second
        // signal meanwhile leaves it half dead for good. Whoever wants the report sets the variable.
        if environment["SWIFT_BACKTRACE"] == nil { environment["SWIFT_BACKTRACE"] = "enable=no" }
        let words = arguments + (isForeground ? [] : ["--background"]) + (crash == nil ? [] : ["--again"])
        return try Detached.again(words, environment).start(output: 1, errors: 2)
    }

    /// Until the supervisor has ended. Returns how.
    private mutating func watch(_ pid: Int32) throws -> Int32 {
        while true {
            let signal = muster_await_signal(Watcher.signals, Int32(Watcher.signals.count), -1)
            if signal == SIGCHLD {
                var code: Int32 = 0, end: Int32?
                // Also the orphans that came here.
                while true {
                    let ended = muster_reap_any(&code)
                    if ended == 0 { break }
                    if ended == pid { end = code }
                }
                if let end { return end }
            } else if signal == SIGUSR1 {
                // The supervisor was told to stop, and does. Should it crash meanwhile, it is not started again.
                isStopping = true
            } else if signal != 0, signal != SIGHUP || isForeground {
                isStopping = true
                kill(pid, signal)
            }
        }
    }

    /// Waits; true when it was told to stop meanwhile.
    private func pause(_ wait: Duration) -> Bool {
        let deadline = MonotonicTime.now + wait
        while MonotonicTime.now < deadline {
            let left = deadline - MonotonicTime.now
            let signal = muster_await_signal(Watcher.signals, Int32(Watcher.signals.count), max(left.nanoseconds, 1))
            if signal != 0, signal != SIGCHLD, signal != SIGHUP || isForeground { return true }
        }
        return false
    }

    /// Ends what the supervisor has left, and with it the watch.
    private func giveUp(_ reason: String) throws -> Int32 {
        tell("\(reason). What it had started is ended")
        let result = Result { try Supervisor.endLeftovers(in: folder, purge: false) }
        // Also when the folder cannot be read any more.
        _ = Orphans.endAll(sparing: strangers)
        if let ended = try result.get() { tell("ended \(ended.count) processes; 'up' starts the stack again") }
        return 1
    }
}
