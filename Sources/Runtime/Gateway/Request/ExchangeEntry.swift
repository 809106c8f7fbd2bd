import HTTP

/// What the kind of listener that a request came through says of it, before any route.
extension Exchange {
    /// Whether the request goes on to the routes; otherwise it has been answered: sent to https, or refused because its connection is for another
    /// name.
    func enters(_ client: ClientSide, _ table: HeadTable) -> Bool {
        if let port = client.redirectPort {
            // Whoever proves that a name is ours does so in plain (RFC 8555, 8.3).
            if PathRules.path(table.targetText).starts(with: Exchange.challenge) { return true }
            redirect(table, port)
            return false
        }
        if let host = table.first(.host), !client.mayAsk(for: host) {
            refuse(.misdirected)
            return false
        }
        if let line = gateway.settings.hsts, client.hasPublicName { answer.fields.append(line) }
        return true
    }

    private static let challenge = Array("/.well-known/acme-challenge/".utf8)

    private func redirect(_ table: HeadTable, _ port: UInt16) {
        guard let host = table.first(.host), !host.isEmpty else { return refuse(.noHost) }
        // The parser has checked that it is a host, with a port or without.
        var name = host
        if host[0] == 91, let end = host.firstIndex(of: 93) {
            name = host.part(0, end + 1)
        } else if let colon = host.firstIndex(of: 58) {
            name = host.part(0, colon)
        }
        answer.fields.append("Location: https://")
        answer.fields.append(name)
        if port != 443 {
            answer.fields.append(":")
            answer.fields.append(decimal: Int(port))
        }
        // `OPTIONS *` has no path.
        if table.targetText.first == 47 { answer.fields.append(table.targetText) } else { answer.fields.append("/") }
        answer.fields.append("\r\n")
        respond(308, type: nil, body: [])
    }
}
