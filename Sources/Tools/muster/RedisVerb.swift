import Basics
import EventLoops
import Glibc
import JSONCoding
import Provisioning
import Sharding

/// The operations on a Redis Cluster; one file each, or two.
private let redisVerbs = [
    redisCreateVerb, redisStopVerb, redisStatusVerb, redisFailoverVerb, redisAddVerb, redisRemoveVerb, redisRebalanceVerb, redisFixVerb,
    redisRecoverVerb, redisBackupVerb, redisRestoreVerb,
]

let redisVerb = Verb(
    name: "redis", summary: "make, check, change and mend a Redis Cluster",
    help: "usage: muster redis VERB [arguments]\n\n"
        + redisVerbs.map { "  \($0.name)\(String(repeating: " ", count: 11 - $0.name.count))\($0.summary)" }.joined(separator: "\n") + """


            Whatever changes something shows its plan first and asks; --yes answers, --dry-run only shows. Cut off at any moment, the same command goes on.
            muster redis VERB --help tells more, with an example.

            example:
              (umask 077; openssl rand -hex 24 > redis.password)
              muster redis create --ports 7001-7006 --dir nodes --password-file redis.password --replicas 1 --failover 5s --yes
              muster redis status --address 127.0.0.1:7001 --password-file redis.password
            """,
    parts: redisVerbs
) { _ in }

/// What every operation takes.
let redisFlags: Set<String> = ["--json", "--dry-run", "--yes"]
let redisOptions: Set<String> = ["--address", "--password-file", "--user"]

/// The cluster that a verb is about, from `--address HOST:PORT` (more than one may be given, with commas or again), `--password-file` and
/// `--user`.
struct RedisTarget: Sendable {
    let seeds: [NodeAddress]
    let credentials: RedisCredentials

    init(_ arguments: Arguments) throws {
        let words = arguments.all("--address").flatMap { $0.split(separator: ",").map(String.init) }
        guard !words.isEmpty else { throw Exit.usage("--address HOST:PORT is needed: any node of the cluster") }
        seeds = try words.map(redisAddress)
        credentials = RedisCredentials(user: arguments.value("--user"), password: try redisPassword(arguments, isNew: false))
    }

    func run<T: Sendable>(_ body: @escaping @Sendable (ClusterSession) async throws -> T) throws -> T {
        try redisFailures {
            try blocking { loop in
                let session = ClusterSession(seeds: seeds, credentials: credentials, loop: loop)
                defer { session.close() }
                return try await body(session)
            }
        }
    }
}

func redisAddress(_ word: String) throws -> NodeAddress {
    guard let address = NodeAddress(word) else { throw Exit.usage("'\(word)' is no HOST:PORT") }
    return address
}

/// From the file, or REDISCLI_AUTH; nil when neither is there. Never from the command line, where everybody on the machine can read it.
func redisPassword(_ arguments: Arguments, isNew: Bool) throws -> String? {
    guard let path = arguments.value("--password-file") else { return environmentValue("REDISCLI_AUTH") }
    return try redisFailures { try RedisPassword.read(path, isNew: isNew) }
}

/// A refused operation is wrong usage (2) only where the command line is; here everything is 1.
func redisFailures<T>(_ body: () throws -> T) throws -> T {
    do { return try body() } catch let failure as ProvisioningFailure {
        guard failure.code == .authentication else { throw Exit.failed("\(failure)") }
        let place = failure.node.map { "\($0): " } ?? ""
        if failure.message.hasPrefix("NOAUTH") { throw Exit.failed("\(place)a password is needed: --password-file FILE") }
        throw Exit.failed("\(place)the password or the user's name is wrong")
    }
}

/// `--rate 5000/s` keys or `20MB/s`.
func redisRate(_ arguments: Arguments) throws -> MoveRate {
    guard let word = arguments.value("--rate") else { return .gentle }
    guard let rate = MoveRate(word) else { throw Exit.usage("--rate: '\(word)' is neither keys a second (5000/s) nor bytes (20MB/s)") }
    return rate
}

/// Shows a plan; returns whether it is to be carried out. Without `--yes` a person at a terminal is asked; without a terminal it is wrong
/// usage.
func redisConfirm(_ plan: [String], notes: [String] = [], _ arguments: Arguments) throws -> Bool {
    for line in plan { printError("  \(line)") }
    for note in notes { printError("  note: \(note)") }
    if arguments.has("--dry-run") {
        printError("nothing was changed (--dry-run)")
        return false
    }
    if arguments.has("--yes") { return true }
    guard isatty(0) == 1, isatty(2) == 1 else { throw Exit.usage("this changes things: --yes is needed where nobody can be asked") }
    printError("Go on? [y/N]")
    guard let answer = readLine(), ["y", "yes"].contains(answer.lowercased()) else { throw Exit.failed("nothing was changed") }
    return true
}

/// The last words of an operation. A replica that copies much data is no failure: the cluster serves meanwhile.
func redisServes(_ what: String, _ copying: [String]) {
    for note in copying { printError("  \(note)") }
    printError(
        copying.isEmpty
            ? "the cluster is whole\(what)"
            : "the cluster serves every slot\(what); until these replicas have their copies, nobody can take over from their masters")
}

/// `{"plan":[…],"applied":true,"notes":[…]}` on standard output for `--json`.
func redisResult(plan: [String], notes: [String] = [], applied: Bool, _ arguments: Arguments, _ more: (inout JSONWriter) -> Void = { _ in })
{
    guard arguments.has("--json") else { return }
    var json = JSONWriter()
    json.beginObject()
    json.member("plan", plan)
    json.member("notes", notes)
    json.member("applied", applied)
    more(&json)
    json.endObject()
    printOut(json.text)
}
