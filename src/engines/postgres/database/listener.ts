/**
 * Carries notices between the processes of a store by LISTEN and NOTIFY, on one connection that is not part of the pool.
 *
 * A notice is no more than a hint. Those that are given while others are on their way go together in one statement, the
 * same one once; one statement a millisecond at most, outside of every transaction, because transactions that notify
 * are committed one after the other. This process's own notices are not brought back to it.
 *
 * States: connected; or down, when notices are dropped, and connecting is tried after 100 ms, doubling to 5 s; closed,
 * which is final. After each connection, `onGap` says that notices may have been missed.
 */
import { createHash } from 'node:crypto'
import type pg from 'pg'
import type { Clock, Timer } from '../../../environment/index.ts'
import type { Database } from './database.ts'
import { endClient } from './goodbye.ts'

export interface ListenerOptions {
  readonly database: Database
  readonly clock: Clock
  onNotice(notice: string): void
  /** Notices may have been missed. */
  onGap(): void
}

const RECONNECT_MS_FIRST = 100
const RECONNECT_MS_MAX = 5_000
/** A connection that was cut without a word is noticed by what is asked on it. */
const PING_MS = 10_000
const ANSWER_MS_MAX = 10_000
const NOTIFY_MS_LEAST = 1
/** The server takes less than 8,000 bytes; a notice is a few characters long. */
const NOTICES_AT_ONCE = 300
const NAME_LENGTH_MAX = 63
const SEPARATOR = ' '

// It need not be on disk: the notice is as good as its arrival.
const NOTIFY = `SELECT set_config('synchronous_commit', 'off', true), pg_notify($1, $2)`

export class Listener {
  readonly #options: ListenerOptions
  readonly #channel: string
  #client: pg.Client | undefined
  #opening: Promise<void> | undefined
  #reconnecting: Timer | undefined
  #ping: Timer | undefined
  #waiting = new Set<string>()
  #sending = false
  #closed = false

  constructor(options: ListenerOptions) {
    this.#options = options
    this.#channel = channelOf(options.database.address.schema)
  }

  /** Resolves after the first attempt to connect. It goes on trying. */
  start(): Promise<void> {
    this.#opening = this.#open(RECONNECT_MS_FIRST)
    return this.#opening
  }

  /** Tells the other processes, soon. */
  notify(notice: string): void {
    this.#waiting.add(notice)
    if (!this.#sending) void this.#sendAll()
  }

  /** Notices that were not sent yet are dropped. */
  async close(): Promise<void> {
    this.#closed = true
    this.#waiting.clear()
    this.#reconnecting?.cancel()
    this.#ping?.cancel()
    await this.#opening
    if (this.#client) await endClient(this.#client)
    this.#client = undefined
  }

  async #open(nextDelayMs: number): Promise<void> {
    const client = this.#options.database.newClient(ANSWER_MS_MAX)
    const lose = () => this.#lose(client)
    client.on('error', lose)
    client.on('end', lose)
    client.on('notification', (notification) => this.#hear(client, notification))
    try {
      await client.connect()
      await client.query(`LISTEN "${this.#channel}"`)
    } catch {
      void endClient(client)
      this.#reconnectLater(nextDelayMs)
      return
    }
    this.#client = client
    this.#pingLater(client)
    if (!this.#closed) this.#options.onGap()
  }

  #hear(client: pg.Client, { processId, payload = '' }: pg.Notification): void {
    // What this connection has sent itself comes back on it.
    if (this.#closed || processId === (client as pg.Client & { readonly processID: number }).processID) return
    for (const notice of payload.split(SEPARATOR)) this.#options.onNotice(notice)
  }

  #lose(client: pg.Client): void {
    if (this.#client !== client) return
    this.#client = undefined
    this.#ping?.cancel()
    void endClient(client)
    this.#reconnectLater(RECONNECT_MS_FIRST)
  }

  #reconnectLater(delayMs: number): void {
    if (this.#closed) return
    this.#reconnecting = this.#options.clock.setTimer(delayMs, () => {
      this.#opening = this.#open(Math.min(delayMs * 2, RECONNECT_MS_MAX))
    })
  }

  #pingLater(client: pg.Client): void {
    if (this.#closed || !this.#options.clock.real) return
    this.#ping = this.#options.clock.setTimer(PING_MS, () => {
      client.query('SELECT 1').then(
        () => this.#client === client && this.#pingLater(client),
        () => this.#lose(client),
      )
    })
  }

  async #sendAll(): Promise<void> {
    this.#sending = true
    // What is told in the same turn of the event loop goes together.
    await undefined
    while (this.#waiting.size > 0 && !this.#closed) {
      const notices = [...this.#waiting].slice(0, NOTICES_AT_ONCE)
      for (const notice of notices) this.#waiting.delete(notice)
      await this.#send(notices.join(SEPARATOR))
    }
    this.#sending = false
  }

  async #send(payload: string): Promise<void> {
    const { clock } = this.#options
    const client = this.#client
    const startedAtMs = clock.elapsedMs()
    await client?.query(NOTIFY, [this.#channel, payload]).catch(() => this.#lose(client))
    const leftMs = NOTIFY_MS_LEAST - (clock.elapsedMs() - startedAtMs)
    if (clock.real && leftMs > 0 && this.#waiting.size > 0) {
      await new Promise<void>((resolve) => clock.setTimer(leftMs, resolve))
    }
  }
}

/** The channel on which notices of a schema's stores are heard. */
export function channelOf(schema: string): string {
  const name = `posthorn_${schema}`
  return name.length <= NAME_LENGTH_MAX ? name : `posthorn_${createHash('md5').update(schema).digest('hex')}`
}
