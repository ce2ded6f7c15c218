import { queue, topic } from 'posthorn'

/** How a message is meant to end; the label, unique to it, says who made it. */
export interface Payload {
  readonly label: string
  /** Handlers discard it: it is to become a dead letter. */
  readonly discard?: boolean
}

export const events = topic<Payload>('crash.events', { partitions: 2, key: ({ label }) => label })
export const jobs = queue<Payload>('crash.jobs')

/** What happens to one user, in the order of `sequence`. */
export interface UserEvent extends Payload {
  readonly user: string
  readonly sequence: number
}

export const users = topic<UserEvent>('crash.users', { partitions: 4, key: ({ user }) => user })
/** Published by the handlers of `users`, within the transaction in which they take effect. */
export const receipts = topic<Payload>('crash.receipts')

/** The subscriptions of `users`: one in order, with a durable step; one that takes effect in the file itself. */
export const ORDERED = 'ordered'
export const TRANSACTIONAL = 'transactional'

/** The subscriptions of `events`: one with a handler for single messages, one with a handler for batches. */
export const SINGLE = 'single'
export const BATCHED = 'batched'

export const LEASE = '1s'

/** The user's own table in the same file, written within the same transactions as messages. */
export const CREATE_ORDERS = 'CREATE TABLE IF NOT EXISTS orders (label TEXT PRIMARY KEY)'
export const INSERT_ORDER = 'INSERT INTO orders (label) VALUES (?)'
export const LIST_ORDERS = 'SELECT label FROM orders'

/** What the transactional handlers do, once a message: nothing in the table keeps them from doing it twice. */
export const CREATE_EFFECTS = 'CREATE TABLE IF NOT EXISTS effects (label TEXT NOT NULL)'
export const INSERT_EFFECT = 'INSERT INTO effects (label) VALUES (?)'
export const LIST_EFFECTS = 'SELECT label FROM effects'
