import { connect, topic } from 'posthorn'

const mailRequested = topic<{ readonly to: string }>('mail.requested')
await using post = await connect('sqlite:data/mails.db')
const sent: string[] = []
const { promise: done, resolve } = Promise.withResolvers<void>()

const subscribers = Array.from({ length: 500 }, (_, n) => ({ to: `subscriber-${n}@example.com` }))

// #region publish
await post.publishAll(mailRequested, subscribers, { priority: 'low' })
await post.publish(mailRequested, { to: 'ada@example.com' }, { priority: 'high' })
// #endregion

post.subscribe(mailRequested, 'mailer', (event) => {
  sent.push(event.data.to)
  if (sent.length === 501) resolve()
})

await done
console.log(`sent: ${sent.length}`)
console.log(`the urgent one was among the first twenty: ${sent.indexOf('ada@example.com') < 20}`)
for (const { priority, nextOffset } of (await post.admin.topics())[0]?.partitions ?? []) {
  console.log(`${priority}: ${nextOffset}`)
}
