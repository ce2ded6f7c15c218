import { mkdirSync } from 'node:fs'
import { DatabaseSync } from 'node:sqlite'
import { connect, topic } from 'posthorn'

const userSignedUp = topic<{ readonly email: string }>('user.signed_up')
mkdirSync('data', { recursive: true })
const delivered = Promise.withResolvers<string>()

// #region connect
const post = await connect('sqlite:data/application.db')
await post.ensureTopics(userSignedUp)

const database = new DatabaseSync('data/application.db', { timeout: 5_000 })
database.exec('CREATE TABLE IF NOT EXISTS users (email TEXT PRIMARY KEY)')
// #endregion

// #region sign-up
async function signUp(email: string): Promise<void> {
  database.exec('BEGIN IMMEDIATE')
  try {
    database.prepare('INSERT INTO users (email) VALUES (?)').run(email)
    await post.publish(userSignedUp, { email }, { tx: database })
    database.exec('COMMIT')
  } catch (error) {
    database.exec('ROLLBACK')
    throw error
  }
}
// #endregion

post.subscribe(userSignedUp, 'welcome-email', (event) => delivered.resolve(event.data.email))

await signUp('ada@example.com')
console.log(`Delivered: ${await delivered.promise}`)
await signUp('ada@example.com').catch((error: Error) => console.log(`Rolled back: ${error.message}`))
const [topicState] = await post.admin.topics()
console.log(`Messages: ${topicState?.messages}`)
database.close()
await post.close()
