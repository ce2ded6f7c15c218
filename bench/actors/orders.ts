import { setTimeout } from 'node:timers/promises'
import type { Client } from 'pg'
import { connect, message, type Post } from 'posthorn'
import { signup, userSignedUp } from '../signup.ts'
import { openSession } from './postgres-session.ts'

/** A process whose transactions insert a row of its own and publish an event of it, or neither. */
export class Orders {
  #post: Post | undefined
  #clients: Client[] = []
  #next = 0

  async open({ url, clients }: { url: string; clients: number }): Promise<void> {
    this.#post = await connect(url)
    this.#clients = await Promise.all(Array.from({ length: clients }, () => openSession(url)))
    await this.#clients[0]!.query('CREATE TABLE orders (order_id bigint PRIMARY KEY)')
    await this.#post.ensureTopics(userSignedUp)
  }

  /** A transaction each, begun on a fixed schedule. */
  async paced({ perSecond, seconds }: { perSecond: number; seconds: number }): Promise<void> {
    const startedAtMs = performance.now()
    const free = [...this.#clients]
    const underWay: Promise<void>[] = []
    for (let begun = 0; begun < perSecond * seconds; begun++) {
      const dueAtMs = startedAtMs + (begun * 1_000) / perSecond
      while (performance.now() < dueAtMs || free.length === 0) await setTimeout(1)
      const client = free.pop()!
      underWay.push(this.#transact(client, 1).then(() => void free.push(client)))
    }
    await Promise.all(underWay)
  }

  /** One transaction after the other on each connection. */
  async bulk({ transactions, messages }: { transactions: number; messages: number }): Promise<void> {
    let left = transactions
    const work = async (client: Client) => {
      while (left-- > 0) await this.#transact(client, messages)
    }
    await Promise.all(this.#clients.map(work))
  }

  async close(): Promise<void> {
    await Promise.all(this.#clients.map((client) => client.end()))
    await this.#post!.close()
  }

  async #transact(client: Client, messages: number): Promise<void> {
    const number = this.#next++
    await client.query('BEGIN')
    await client.query({ name: 'order', text: 'INSERT INTO orders VALUES ($1)', values: [number] })
    const events = Array.from({ length: messages }, (_, index) =>
      message(userSignedUp, signup(number * messages + index)),
    )
    await this.#post!.publishAll(events, { tx: client })
    await client.query('COMMIT')
  }
}
