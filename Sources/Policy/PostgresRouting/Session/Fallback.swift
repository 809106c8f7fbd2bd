/// What becomes of a text that failed on a replica.
public enum Fallback {
    public enum Step: Sendable, Equatable {
        /// Once more, on the primary; the text is remembered as a write when `learns`, and the catalog is read again when `readsCatalog`.
        case primary(learns: Bool, readsCatalog: Bool)
        /// The error goes to the client, for this reason.
        case client(String)
    }

    /// SQLSTATEs after which a read outside of a transaction is tried once on the primary: what a standby cannot do, what it has not
    /// replayed yet, and what its replay cancelled.
    public static func decide(_ verdict: RouteVerdict, sqlState: String, message: String, rowsWereSent: Bool, isSecondTry: Bool) -> Step {
        guard verdict.target == .replica, verdict.mayMoveToPrimary else {
            return .client("its transaction is READ ONLY, or a replica was asked for")
        }
        if isSecondTry { return .client("it was tried on the primary already") }
        if rowsWereSent { return .client("rows of the answer were sent") }
        switch sqlState {
        case "25006": return .primary(learns: true, readsCatalog: true)
        case "42P01", "42883": return .primary(learns: false, readsCatalog: true)
        case "42703": return .primary(learns: false, readsCatalog: false)
        case "0A000" where message.contains("during recovery"): return .primary(learns: false, readsCatalog: false)
        case "40001", "57014":
            return message.contains("conflict with recovery")
                ? .primary(learns: false, readsCatalog: false) : .client("\(sqlState) was not the replica's recovery")
        default: return .client("\(sqlState) is the same on every server")
        }
    }
}
