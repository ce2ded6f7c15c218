/**
 * A TCP proxy before a Postgres server, which makes the network fail at a chosen moment. It passes everything on, until
 * it is told to cut: the next transaction in which some text is sent loses its connection at its COMMIT. Or it is
 * frozen, when nothing passes in either direction, and nobody is told.
 */
import { once } from 'node:events'
import { createServer, type Server, type Socket, connect as tcpConnect } from 'node:net'
import type { TestContext } from 'node:test'
import { atEnd } from './faults-stage.ts'

/** What becomes of the COMMIT: the server carries it out, and its answer is lost; or it never gets there. */
export type Cut = 'carried out' | 'lost'

interface PlannedCut {
  /** Sent, in whatever form, since the transaction's BEGIN. */
  readonly within: string
  readonly cut: Cut
  readonly done: () => void
}

const BEGIN = 'BEGIN ISOLATION'
const COMMIT = 'COMMIT\0'

export class PostgresProxy {
  /** How to get to the server through the proxy. */
  readonly url: string
  readonly #server: Server
  readonly #target: { readonly host: string; readonly port: number }
  readonly #lines = new Set<Line>()
  #planned: PlannedCut | undefined
  #frozen = false

  private constructor(server: Server, url: string) {
    const target = new URL(url)
    this.#server = server
    this.#target = { host: target.hostname, port: Number(target.port) }
    target.port = String((server.address() as { readonly port: number }).port)
    this.url = target.href
  }

  static async start(context: TestContext, url: string): Promise<PostgresProxy> {
    const server = createServer()
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    const proxy = new PostgresProxy(server, url)
    server.on('connection', (client) => proxy.#accept(client))
    atEnd(context, () => proxy.#close())
    return proxy
  }

  /** Resolves once the connection of the next transaction that sends this text is cut. */
  cutCommit(within: string, cut: Cut): Promise<void> {
    return new Promise((done) => {
      this.#planned = { within, cut, done }
    })
  }

  /** From now on nothing passes. New connections are refused. */
  freeze(): void {
    this.#frozen = true
    for (const line of this.#lines) line.pause()
  }

  /** All passes again, and what was held back. */
  thaw(): void {
    this.#frozen = false
    for (const line of this.#lines) line.resume()
  }

  /** Drops all connections. New ones are taken. */
  cutAll(): void {
    for (const line of this.#lines) line.end()
  }

  #accept(client: Socket): void {
    if (this.#frozen) return void client.destroy()
    const line = new Line(client, tcpConnect(this.#target), (sent) => this.#takeCut(sent))
    this.#lines.add(line)
    line.ended.then(() => this.#lines.delete(line))
  }

  #takeCut(sent: string): PlannedCut | undefined {
    const planned = this.#planned
    if (!planned || !sent.includes(planned.within)) return undefined
    this.#planned = undefined
    return planned
  }

  async #close(): Promise<void> {
    this.cutAll()
    this.#server.close()
    await once(this.#server, 'close')
  }
}

/** A connection on its way through the proxy. */
class Line {
  readonly ended: Promise<unknown>
  readonly #client: Socket
  readonly #server: Socket
  /** What the client has sent since the last BEGIN. */
  #sent = ''
  #swallowing = false

  constructor(client: Socket, server: Socket, takeCut: (sent: string) => PlannedCut | undefined) {
    this.#client = client
    this.#server = server
    this.ended = Promise.all([once(client, 'close'), once(server, 'close')])
    for (const socket of [client, server]) {
      socket.on('error', () => {})
      socket.on('close', () => this.end())
    }
    client.on('data', (chunk) => this.#pass(chunk, takeCut))
    server.on('data', (chunk) => this.#swallowing || client.write(chunk))
  }

  pause(): void {
    for (const socket of [this.#client, this.#server]) socket.pause()
  }

  resume(): void {
    for (const socket of [this.#client, this.#server]) socket.resume()
  }

  end(): void {
    for (const socket of [this.#client, this.#server]) socket.destroy()
  }

  #pass(chunk: Buffer, takeCut: (sent: string) => PlannedCut | undefined): void {
    this.#sent += chunk.toString('latin1')
    const begins = this.#sent.lastIndexOf(BEGIN)
    if (begins > 0) this.#sent = this.#sent.slice(begins)
    const planned = this.#sent.includes(COMMIT) ? takeCut(this.#sent) : undefined
    if (planned) this.#cut(planned, chunk)
    else this.#server.write(chunk)
  }

  /** The server answers a COMMIT after all that was asked before it; what it answers with is the last of its words. */
  #cut({ cut, done }: PlannedCut, chunk: Buffer): void {
    const end = () => {
      this.end()
      done()
    }
    this.#swallowing = true
    if (cut === 'lost') end()
    else {
      this.#server.on('data', (answer) => answer.includes(COMMIT) && end())
      this.#server.write(chunk)
    }
  }
}
