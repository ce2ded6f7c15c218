// #region dead-letters
import { connect } from 'posthorn'
import { emails } from './emails.ts'

const post = await connect('sqlite:data/first-queue.db')

for await (const dead of post.admin.eachDeadLetter(emails, 'emails')) {
  console.log(`Dead letter ${dead.id} at offset ${dead.offset}: ${dead.reason}`)
  for (const failure of dead.failures) console.log(`  attempt ${failure.attempt}: ${failure.message}`)
}

await post.close()
// #endregion
