import { Client } from 'pg'

/** Opens a session on the server of a Postgres store, in which names mean what is in the store's schema. */
export async function openSession(url: string): Promise<Client> {
  const address = new URL(url)
  const schema = address.searchParams.get('schema')
  address.searchParams.delete('schema')
  const client = new Client({ connectionString: address.href })
  await client.connect()
  await client.query(`CREATE SCHEMA IF NOT EXISTS ${schema}`)
  await client.query(`SET search_path = ${schema}`)
  return client
}
