// #region publish
import { connect } from 'posthorn'
import { emails } from './emails.ts'

const post = await connect('sqlite:data/first-queue.db')

for (const to of ['ada@example.com', 'grace@example.com', 'nobody@example.com']) {
  const { offset } = await post.publish(emails, { to, subject: 'Welcome' })
  console.log(`Stored the email to ${to} at offset ${offset}.`)
}

await post.close()
// #endregion
