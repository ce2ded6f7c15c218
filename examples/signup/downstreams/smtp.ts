import type { AddressInfo } from 'node:net'
import { SMTPServer } from 'smtp-server'
import type { Service } from './service.ts'

/** A mail server. Broken, it answers 421 to new connections and to the next mail on those that are open. */
export function startSmtp(service: Service): Promise<string> {
  const refuse = (callback: (error?: Error | null) => void) =>
    callback(service.broken ? Object.assign(new Error('Service not available'), { responseCode: 421 }) : undefined)
  const server = new SMTPServer({
    disabledCommands: ['AUTH', 'STARTTLS'],
    disableReverseLookup: true,
    onConnect: (_session, callback) => refuse(callback),
    onMailFrom: (_address, _session, callback) => refuse(callback),
    onData(stream, session, callback) {
      stream.resume()
      stream.once('end', async () => {
        await service.takeTime()
        for (const recipient of session.envelope.rcptTo) service.count(recipient.address)
        callback()
      })
    },
  })
  server.on('error', () => {}) // a client that hangs up, as a killed worker does
  return new Promise((resolve) => {
    const listener = server.listen(0, '127.0.0.1', () => {
      resolve(`smtp://127.0.0.1:${(listener.address() as AddressInfo).port}`)
    })
  })
}
