import { queue, topic } from 'posthorn'

/** How a message is meant to end; the label, unique to it, says who made it. */
export interface Payload {
  readonly label: string
  /** Handlers discard it: it is to become a dead letter. */
  readonly discard?: boolean
}

export const events = topic<Payload>('crash.events', { partitions: 2, key: ({ label }) => label })
export const jobs = queue<Payload>('crash.jobs')

/** The subscriptions of `events`: one with a handler for single messages, one with a handler for batches. */
export const SINGLE = 'single'
export const BATCHED = 'batched'

export const LEASE = '1s'

/** The user's own table in the same file, written within the same transactions as messages. */
export const CREATE_ORDERS = 'CREATE TABLE IF NOT EXISTS orders (label TEXT PRIMARY KEY)'
export const INSERT_ORDER = 'INSERT INTO orders (label) VALUES (?)'
export const LIST_ORDERS = 'SELECT label FROM orders'
