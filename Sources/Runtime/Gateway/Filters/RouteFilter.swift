import Basics
import HTTP

/// What a route may look at in a request's head. The order of the cases is the order in which they act, and stands nowhere else.
///
/// After a filter has found an answer, those that would answer are left out; those that only add to the answer still act. An answer that
/// was found is given once the route's rate limits have let the request through (`Exchange.proceed`): so a request that is refused for its
/// password counts against the limit. Edits of fields act last, on what leaves: `HeadRewriter`.
enum RouteFilter: UInt8, CaseIterable, Sendable {
    /// Addresses that may ask.
    case addresses
    /// Paths that are not served.
    case deniedPaths
    /// Questions of browsers whether a request may be made.
    case preflight
    /// Fields that decide here and are passed on, and came more than once: the backend could read another line than the one that was checked.
    case repeats
    /// Users and tokens.
    case credentials
    /// Redirects and pages, where nothing else is behind the route.
    case fixedAnswer
    /// Fields that let pages of other origins read the answer.
    case sharing

    /// The filters that a route has, in their order.
    static func needed(_ access: AccessRules, denies: Bool, answers: Bool, hasSingleFields: Bool) -> [RouteFilter] {
        allCases.filter { filter in
            switch filter {
            case .addresses: !access.allowed.isEmpty || !access.refused.isEmpty
            case .deniedPaths: denies
            case .preflight, .sharing: access.cors != nil
            case .repeats: hasSingleFields
            case .credentials: access.credentials != nil
            case .fixedAnswer: answers
            }
        }
    }

    /// Acts on a request: finds its answer, or adds to the fields of whatever the answer will be. `scheme` is the one that the client used.
    func apply(_ table: HeadTable, _ route: Route, client: IPAddress?, scheme: StaticString, _ answer: inout AnswerState) {
        if self == .sharing {
            guard let cors = route.access.cors else { return }
            let isPreflight = if case .preflight? = answer.ready { true } else { false }
            return answer.fields.append(text: cors.lines(table, isPreflight: isPreflight))
        }
        if answer.ready == nil { answer.ready = verdict(table, route, client, scheme, &answer.fields) }
    }

    private func verdict(
        _ table: HeadTable, _ route: Route, _ client: IPAddress?, _ scheme: StaticString, _ fields: inout ByteBuffer
    ) -> ReadyAnswer? {
        switch self {
        case .addresses: return route.access.admits(client) ? nil : .failure(.addressRefused)
        case .deniedPaths: return route.denies(table.targetText) ? .failure(.denied) : nil
        case .preflight: return CrossOrigin.isPreflight(table) ? .preflight : nil
        case .repeats:
            guard let name = route.repeatedField(table) else { return nil }
            return .failure(
                .repeatedField,
                "this route goes by the field \(String(decoding: name, as: UTF8.self)), which came more than once; send it once")
        case .credentials:
            guard let credentials = route.access.credentials, !credentials.admits(table.value(Array("authorization".utf8))) else {
                return nil
            }
            fields.field("WWW-Authenticate", text: credentials.challenge)
            return .failure(.unauthorized)
        case .fixedAnswer: return route.answer?.ready(table, scheme: scheme)
        case .sharing: return nil
        }
    }
}
