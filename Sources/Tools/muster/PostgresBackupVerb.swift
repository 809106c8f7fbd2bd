import Basics
import PostgresStores
import StackModel
import StoreKinds

let postgresBackupVerb = Verb(
    name: "backup", summary: "a checked copy of all data, while it is used",
    help: """
        usage: muster postgres backup --to DIR [STORE] [--stack FILE] [--yes] [--dry-run] [--json]

        Copies a standby that has everything, or the primary where none has, into DIR, a folder that is not there yet, and checks the
        copy against its manifest. The passwords of the store's roles come along: keep DIR as closed as the store. Writes go on.

        example:
          muster postgres backup --to backups/monday --yes
        """,
    flags: postgresFlags, options: postgresOptions.union(["--to"])
) { arguments in
    try arguments.atMost(1, "one store")
    guard let target = arguments.value("--to").map(Files.absolute) else { throw Exit.usage("--to DIR is needed: where the backup goes") }
    let handle = try StackHandle.find(arguments.value("--stack"))
    try handle.requireRunning()
    let stores = try postgresStores(try handle.ask("GET", "/api/stores"))
    let store = try postgresStore(arguments.positional.first, stores.map(\.name))
    // A standby is the last of those that have everything where it has: the primary has other work.
    guard let standing = stores.first(where: { $0.name == store }), let node = standing.source else {
        throw Exit.failed("no node of \(store) can be copied now: 'muster postgres status' tells why")
    }
    let plan = ["\(store)/\(node.number) is copied into \(target), and the copy is checked"]
    guard try redisConfirm(plan, arguments) else { return redisResult(plan: plan, applied: false, arguments) }
    let bytes: Int
    do throws(StoreFailure) {
        bytes = try PostgresBackup.take(of: store, in: handle.folder.store(store), node: node.number, port: node.port, to: target)
    } catch { throw Exit.failed(error.description) }
    printError("\(target) has a backup of \(store): \(bytes) bytes, checked")
    redisResult(plan: plan, applied: true, arguments) { $0.member("bytes", bytes) }
}

let postgresRestoreVerb = Verb(
    name: "restore", summary: "a store of a backup",
    help: """
        usage: muster postgres restore --from DIR [STORE] [--stack FILE] [--yes] [--dry-run] [--json]

        The stack must be down and the store without data (move .muster/STACK/stores/STORE away). The backup is checked, and becomes the
        store's first node; 'muster up' starts it and copies its standbys.

        example:
          muster down && mv .muster/shop/stores/db db.old
          muster postgres restore --from backups/monday --yes && muster up -d
        """,
    flags: postgresFlags, options: postgresOptions.union(["--from"])
) { arguments in
    try arguments.atMost(1, "one store")
    guard let source = arguments.value("--from").map(Files.absolute) else { throw Exit.usage("--from DIR is needed: the backup") }
    let handle = try StackHandle(arguments.value("--stack"))
    if try handle.isRunning { throw Exit.failed("the stack '\(handle.name)' runs: 'muster down' first") }
    var declared: [String: PostgresSettings] = [:]
    for spec in try handle.stack.stores { if case .run(.postgres(let settings)) = spec.form { declared[spec.name] = settings } }
    let store = try postgresStore(arguments.positional.first, declared.keys.sorted())
    guard let settings = declared[store] else { throw Exit.usage("the stack declares no PostgreSQL store '\(store)'") }
    let plan = ["\(source) is checked, and becomes the first node of \(store) in \(handle.folder.store(store))"]
    guard try redisConfirm(plan, arguments) else { return redisResult(plan: plan, applied: false, arguments) }
    do throws(StoreFailure) {
        try PostgresBackup.restore(settings, of: store, in: handle.folder.store(store), from: source)
    } catch { throw Exit.failed(error.description) }
    printError("\(store) is restored: '\(selfName) up' starts it")
    redisResult(plan: plan, applied: true, arguments)
}

extension PostgresStanding {
    /// The node to copy; nil: none has everything.
    var source: (number: Int, port: Int)? { nodes.last { $0.isWhole && !$0.isPrimary }.map { ($0.number, $0.port) } ?? primary }
    private var primary: (number: Int, port: Int)? { nodes.first(where: \.isPrimary).map { ($0.number, $0.port) } }
}

/// The store that is named, or the only one.
func postgresStore(_ word: String?, _ names: [String]) throws(Exit) -> String {
    guard let word else {
        if names.count == 1 { return names[0] }
        throw .usage(names.isEmpty ? "the stack has no PostgreSQL store" : "which store? \(names.joined(separator: ", "))")
    }
    if names.contains(word) { return word }
    let hint = nearestWord(to: word, in: names).map { "; did you mean '\($0)'?" } ?? ""
    throw .usage("the stack has no PostgreSQL store '\(word)'\(hint)")
}
